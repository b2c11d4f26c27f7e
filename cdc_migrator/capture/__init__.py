"""Publication, slot and connector: everything that makes the source speak."""
