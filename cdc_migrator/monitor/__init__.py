"""Lag, metrics and health: measured once, shown everywhere."""
