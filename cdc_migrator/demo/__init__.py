"""A shop with live traffic, moved end to end with the ordinary commands."""
