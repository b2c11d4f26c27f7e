"""Values that every part of the service speaks; the standard library and msgspec only."""
