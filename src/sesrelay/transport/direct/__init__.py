"""Out to the recipient domain's own exchangers."""
