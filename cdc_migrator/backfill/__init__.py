"""Copy what exists: schema, rows under the exported snapshot, indexes and keys."""
