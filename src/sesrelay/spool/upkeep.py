"""What is done to many deliveries a page at a time: placing anew, looking for what is old, forgetting; and the counts of routes.

Operations of the writer, as those of `flow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from sesrelay.mail.delivery import Delivery, Placement
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.spool import selecting
from sesrelay.spool.query import rows, the_row
from sesrelay.spool.reading import DELIVERY, PAGE, START, Messages, open_keys
from sesrelay.spool.records import IN_FLIGHT, QUEUED, Key, unpack_delivery
from sesrelay.spool.transaction import Transaction

PLACE = (
    "UPDATE delivery SET route = ?, transport = ?, nexthop = ?, priority = ?, site = ?, due = ? WHERE message = ? AND n = ? "
    "AND state = 0 AND transport = ? AND nexthop = ? AND priority = ? AND route = ? AND site = ? AND due = ?"
)
FINISHED = (  # bounded by id: where little is old, all that is younger would be looked at
    "SELECT id, EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.id AND state < 3) "
    "FROM message WHERE id > ? AND id < ? AND accepted < ? ORDER BY id LIMIT ?"
)
COUNT_SENT = "INSERT INTO sent (site, slot, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = excluded.n"
FORGET_SENT = "DELETE FROM sent WHERE site = ? AND slot < ?"
SENT = "SELECT site, slot, n FROM sent ORDER BY site, slot"
SET_BACK = (
    "UPDATE delivery SET due = CASE WHEN due <= ?3 + ?4 THEN ?3 ELSE due - ?4 END WHERE message = ?1 AND n = ?2 AND due > ?3 "
    f"AND (due <= ?3 + ?4 OR coalesce(reason, '') <> '{SCHEDULED}')"
)


def waiting(tx: Transaction, after: Key, limit: int, chosen: bool) -> tuple[list[Delivery], Key | None]:
    """Return a page of what is queued and not claimed, and where the next page starts, if there is one.

    `chosen`: only that for which an operator chose another way than it waits for.
    """
    messages, transports = Messages(tx.cursor), tx.tally.transports()
    if chosen:
        keys, end = selecting.chosen(tx.cursor, transports, after, limit)
    else:
        keys = open_keys(tx.cursor, (QUEUED,), transports, after, limit)
        end = keys[-1] if len(keys) == limit else None
    free = (key for key in keys if key not in tx.claims)
    return [unpack_delivery(the_row(tx.cursor, DELIVERY, key), messages[key[0]]) for key in free], end


class Move(NamedTuple):
    """A delivery that goes from where and when `waiting` has found it due, `old` and `due`, to `new` and `then`."""

    key: Key
    old: Placement
    due: float
    new: Placement
    then: float


def place(tx: Transaction, moves: Sequence[Move]) -> bool:
    """Move deliveries that are still as they were found; tell whether all were."""
    moved = 0
    for key, old, due, new, then in moves:
        if key in tx.claims:
            continue
        to = (new.route, *new.lane, int(new.priority), new.site, then)
        found = (*old.lane, int(old.priority), old.route, old.site, due)
        tx.cursor.execute(PLACE, (*to, *key, *found))
        if tx.db.changes():
            moved += 1
            tx.tally.carry((*old.lane, int(old.priority), QUEUED), (*new.lane, int(new.priority), QUEUED))
    return moved == len(moves)


def set_back(tx: Transaction, seconds: float, now: float, after: Key, limit: int) -> Key | None:
    """Bring a page of what waits forward by `seconds`; return where the next page starts, if there is one."""
    keys = open_keys(tx.cursor, (QUEUED,), tx.tally.transports(), after, limit)
    tx.cursor.executemany(SET_BACK, [(*key, now, seconds) for key in keys])
    return keys[-1] if len(keys) == limit else None


def in_flight(tx: Transaction, limit: int) -> list[Delivery]:
    messages = Messages(tx.cursor)
    keys = open_keys(tx.cursor, (IN_FLIGHT,), tx.tally.transports(), START, limit)
    return [unpack_delivery(the_row(tx.cursor, DELIVERY, key), messages[key[0]]) for key in keys]


def aged(tx: Transaction, accepted_before: float, after: Key, limit: int) -> tuple[list[Delivery], Key | None]:
    """Return a page of what is old, and the last key looked at where more may follow."""
    messages = Messages(tx.cursor)
    keys = open_keys(tx.cursor, (QUEUED,), tx.tally.transports(), after, limit)
    found: list[Delivery] = []
    for key in keys:
        if messages[key[0]].accepted >= accepted_before:
            return found, None  # queue ids grow with time: what follows is younger
        if key not in tx.claims:
            found.append(unpack_delivery(the_row(tx.cursor, DELIVERY, key), messages[key[0]]))
    return found, keys[-1] if len(keys) == limit else None


def purge(tx: Transaction, finished_before: float, after: int, end: int, limit: int) -> tuple[int, int | None]:
    """Forget at most `limit` of the next page of old messages; return how many, and where the next page starts."""
    seen = rows(tx.cursor, FINISHED, (after, end, finished_before, PAGE))
    gone = [(number,) for number, remains in seen if not remains][:limit]
    for table in ("delivery", "event", "digest"):
        tx.cursor.executemany(f"DELETE FROM {table} WHERE message = ?", gone)
    tx.cursor.executemany("DELETE FROM message WHERE id = ?", gone)
    return len(gone), seen[-1][0] if len(seen) == PAGE else None


def sent(tx: Transaction) -> list[tuple[str, int, int]]:
    return cast("list[tuple[str, int, int]]", rows(tx.cursor, SENT))


def count_sent(tx: Transaction, counts: Sequence[tuple[str, int, int]], forget_before: int) -> None:
    tx.cursor.executemany(COUNT_SENT, counts)
    tx.cursor.executemany(FORGET_SENT, [(site, forget_before) for site in {site for site, _, _ in counts}])
