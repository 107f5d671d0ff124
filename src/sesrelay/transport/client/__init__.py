"""An SMTP client: what relays and direct delivery share of sessions, connections, answers and content."""
