"""How much memory `run` takes at most, whatever comes."""
