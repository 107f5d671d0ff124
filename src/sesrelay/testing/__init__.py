"""Stand-ins for the other side, stricter than mocks, for tests and for trying sesrelay out without an account."""
