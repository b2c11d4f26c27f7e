"""Schemas that nobody here wrote, and the proof that they go through."""
