"""migration.yaml and the environment, parsed once into frozen settings."""
