"""The one that writes: all operations that wait go into one transaction, with one sync for all.

`committing` is the writer itself, a group at a time. It runs on a thread (`thread`), for verbs that find no daemon and
for tests, or in a process of its own (`child`, spoken to by `process`), for the daemon: a thread would take Python's
lock from the event loop at each statement, which docs/decisions/0035 has measured.

Invariant: a future is resolved with a result only after COMMIT has returned.
"""
