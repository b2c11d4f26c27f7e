"""What differs from one database engine to another."""
