"""Reconcile: prove at alignment points that both sides hold the same rows, and repair."""
