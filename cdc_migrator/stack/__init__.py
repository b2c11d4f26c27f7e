"""A local Kafka, Connect and two PostgreSQL servers as supervised processes."""
