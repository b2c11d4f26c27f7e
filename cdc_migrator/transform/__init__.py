"""Mappings: what the user says of a table's new shape, worked out into routes."""
