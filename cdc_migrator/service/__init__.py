"""Wiring: the long-running consumer and the migrate verb."""
