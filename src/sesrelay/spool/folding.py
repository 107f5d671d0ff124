"""Messages that end as they are accepted, and the digest that stands for them: both in one transaction.

Invariant: a digest tells of as many messages as are stored with it; one that is on its way, or that an operator holds,
takes no more.
"""

from __future__ import annotations

from typing import cast

from sesrelay.seams import SpoolError, Superseded
from sesrelay.spool import flow
from sesrelay.spool.query import row, rows, the_row
from sesrelay.spool.records import QUEUED, SIZE, Packed, id_of, written, written_head
from sesrelay.spool.transaction import Transaction

FOLDED = "SELECT n FROM digest WHERE message = ?"
STATES = "SELECT state, n FROM delivery WHERE message = ?"
NEW = "INSERT INTO digest (message, n) VALUES (?, 1)"
MORE = "UPDATE digest SET n = ? WHERE message = ?"
RETELL = "UPDATE message SET size = ?, head = ? WHERE id = ?"
REWRITE = "UPDATE content SET body = ? WHERE message = ?"
SUPPRESSED = "UPDATE delivery SET \"end\" = 'suppressed' WHERE message = ?"


class Miscounted(SpoolError):
    """The digest does not tell of one message less than it is to tell of now."""


def count(tx: Transaction, digest: int) -> int:
    """Return of how many messages `digest` tells."""
    found = row(tx.cursor, FOLDED, (digest,))
    return 0 if found is None else cast(int, found[0])


def fold(tx: Transaction, folded: Packed, told: Packed, number: int) -> None:
    """Store `folded` as ended, and the digest as `told`: of `number` messages. Raises: Miscounted, Superseded"""
    digest = told.number
    if count(tx, digest) != number - 1:
        raise Miscounted(f"{id_of((digest, 0)).message} is not at {number - 1}")
    if number == 1:
        flow.accept(tx, told, False)
        tx.cursor.execute(NEW, (digest,))
    else:
        standing = rows(tx.cursor, STATES, (digest,))
        if not standing or any(state != QUEUED or (digest, n) in tx.claims for state, n in standing):
            raise Superseded("the digest is on its way")
        (before,) = the_row(tx.cursor, "SELECT size FROM message WHERE id = ?", (digest,))
        tx.cursor.execute(RETELL, (told.message[SIZE], written_head(told.message), digest))
        tx.cursor.execute(REWRITE, (told.content, digest))
        tx.cursor.execute(MORE, (number, digest))
        tx.tally.message(0, told.message[SIZE] - before)
    tx.cursor.execute(flow.INSERT_MESSAGE, written(folded.message))
    tx.cursor.executemany(flow.INSERT_DELIVERY, folded.deliveries)
    tx.cursor.execute(SUPPRESSED, (folded.number,))
