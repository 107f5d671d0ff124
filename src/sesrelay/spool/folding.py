"""Messages that end as they are accepted, and the digest that stands for them: both in one transaction.

Invariant: a digest tells of as many messages as are stored with it; one that is on its way, or that an operator holds,
takes no more.
"""

from __future__ import annotations

from collections.abc import Callable

from sesrelay.seams import Submission, Superseded
from sesrelay.spool import flow
from sesrelay.spool.query import row, rows, the_row
from sesrelay.spool.records import QUEUED, Packed, pack
from sesrelay.spool.transaction import Transaction

FOLDED = "SELECT n FROM digest WHERE message = ?"
STATES = "SELECT state, n FROM delivery WHERE message = ?"
NEW = "INSERT INTO digest (message, n) VALUES (?, 1)"
MORE = "UPDATE digest SET n = ? WHERE message = ?"
RETELL = "UPDATE message SET size = ?, head = ? WHERE id = ?"
REWRITE = "UPDATE content SET body = ? WHERE message = ?"
SUPPRESSED = "UPDATE delivery SET \"end\" = 'suppressed' WHERE message = ?"


def fold(tx: Transaction, folded: Packed, compose: Callable[[int], Submission], digest: int) -> int:
    """Store `folded` as ended and have `digest` tell of it; return of how many it tells now. Raises: Superseded"""
    found = row(tx.cursor, FOLDED, (digest,))
    count = 1 if found is None else found[0] + 1
    told = pack(compose(count), in_file=False)
    if found is None:
        flow.accept(tx, told, False)
        tx.cursor.execute(NEW, (digest,))
    else:
        standing = rows(tx.cursor, STATES, (digest,))
        if not standing or any(state != QUEUED or (digest, n) in tx.claims for state, n in standing):
            raise Superseded("the digest is on its way")
        (before,) = the_row(tx.cursor, "SELECT size FROM message WHERE id = ?", (digest,))
        tx.cursor.execute(RETELL, (told.message[2], told.message[6], digest))
        tx.cursor.execute(REWRITE, (told.content, digest))
        tx.cursor.execute(MORE, (count, digest))
        tx.tally.message(0, told.message[2] - before)
    tx.cursor.execute(flow.INSERT_MESSAGE, folded.message)
    tx.cursor.executemany(flow.INSERT_DELIVERY, folded.deliveries)
    tx.cursor.execute(SUPPRESSED, (folded.number,))
    return count
