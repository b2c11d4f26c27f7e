"""The control schema: what a migration knows about itself, kept in the databases."""
