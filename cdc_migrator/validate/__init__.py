"""Rules that both sides' rows must keep: what is asked, how it is judged, what is proposed."""
