"""What became of mail, told to people and machines: log lines and metrics, both fed by one fan-out of events."""
