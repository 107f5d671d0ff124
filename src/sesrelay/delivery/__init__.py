"""The engine: what waits goes into lanes, lanes make attempts, and each attempt is settled in the store."""
