"""How the target's schema differs from the source's, how much that matters, and what mends it."""
