"""The decisions: pure functions from values to values; time and chance are arguments."""
