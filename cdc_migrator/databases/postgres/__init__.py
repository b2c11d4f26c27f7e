"""PostgreSQL: sessions, the catalog, and how each type travels."""
