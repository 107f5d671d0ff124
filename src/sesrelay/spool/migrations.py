"""Bringing a store to the schema this version writes, in one transaction.

Invariant: a step is never changed after a release; a new one is appended.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from sesrelay.spool.errors import StoreRefused
from sesrelay.spool.schema import APPLICATION_ID, TABLES_1, TABLES_2, TABLES_3

STEPS: tuple[str, ...] = (TABLES_1, TABLES_2, TABLES_3)
"""Step i leads from user_version i to i + 1."""


def migrate(db: apsw.Connection, where: str, steps: Sequence[str] = STEPS) -> None:
    """Take the store to the newest version. Raises: StoreRefused for one that is newer, or no queue at all."""
    version = db.pragma("user_version")
    application = db.pragma("application_id")
    if version and application != APPLICATION_ID:
        raise StoreRefused(f"{where} is an SQLite database of another program; set another state_dir, or move the file away")
    if version > len(steps):
        raise StoreRefused(
            f"{where} was written by a newer version (schema {version}, this one knows {len(steps)}); "
            "start that version again, or drain the queue with it before going back"
        )
    if version == len(steps):
        return
    with db:
        for step in steps[version:]:
            db.execute(step)
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", len(steps))
