"""What the preflight finds, by subject, decided from facts: no connection and no clock in here.

Every check returns findings; none raises, so that all faults are reported together.
"""
