"""Read a schema as comparable parts: one query a family of objects, PostgreSQL's own words."""
