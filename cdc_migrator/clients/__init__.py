"""Clients of Kafka and of Connect: made of what the settings say now, with errors that tell."""
