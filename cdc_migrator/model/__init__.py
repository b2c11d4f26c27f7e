"""Values that every part of the service speaks; standard library only."""
