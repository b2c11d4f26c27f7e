"""Hooks send applications from one side to the other: run at moments of the cutover, and undone."""
