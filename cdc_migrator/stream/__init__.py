"""From Kafka records to whole source transactions."""
