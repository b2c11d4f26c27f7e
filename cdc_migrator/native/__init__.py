"""What runs for every event of a full topic, in C: reading, folding and writing out rows.

Python's own way does the same and stands beside it: for what is rare, for few records, and where
the library was not built. What the library does not take for plain it leaves to Python, which knows
every form and every error.
"""
