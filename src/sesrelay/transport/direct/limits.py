"""How much goes to one recipient domain at once."""

BATCH_LIMIT = 100  # recipients that every host must take in a transaction (RFC 5321 §4.5.3.1.8)
CONCURRENCY = 10
