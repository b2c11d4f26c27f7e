"""The user's function that computes columns of a mapping: the one place where it is run."""
