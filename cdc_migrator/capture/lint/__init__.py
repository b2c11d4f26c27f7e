"""Rules for the configuration of a Debezium connector, ours or one that a user brings.

Pure: a mapping of settings in, findings out. No connection, and no value of a secret in a finding.
"""
