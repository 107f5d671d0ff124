"""Mail at rest: accepted messages, the state of each delivery, and what became of them.

How a crash is survived:

- `accept` answers only after the transaction with message, content, deliveries and events has been synced (commit A).
  SQLite in WAL mode with synchronous=FULL syncs the log in each COMMIT; one COMMIT serves all who wait. Content over
  the threshold is a file, written and synced with its folder before that commit; a file without a message is an
  orphan, and swept at the next start.
- `open_attempt` (commit B), or `accept` of deliveries in state in_flight, makes the attempt durable before a byte
  leaves, its retry already in the future. `open_attempts` names at start those whose outcome was never stored.
- `settle` (commit C) stores outcomes, schedule and reports together, or nothing of them.
- Claims live in the writer's memory: after a crash all are free, and no attempt is spent.
- A COMMIT that fails leaves nothing of its operations: all who waited get SpoolError, the connection is opened anew,
  and the store goes on as soon as the disk does.

Invariant: one daemon or verb at a time (`lock`), one thread or process of it that writes (`writer`), one SQLite file.
Invariant: every public method raises SpoolError for trouble of the store, and nothing else.
"""
