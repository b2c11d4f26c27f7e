"""Measurements against peers, in one run on one machine; no test reads a clock."""
