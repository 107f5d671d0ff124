"""What operators read: pages over the store, messages, and totals.

Invariant: runs on connections that cannot write.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from sesrelay.mail import queue_id
from sesrelay.policy import ses_ids
from sesrelay.seams import DeliveryRecord, MessageRecord
from sesrelay.spool import selecting
from sesrelay.spool.matching import Match, bare_id
from sesrelay.spool.query import Row, row, rows
from sesrelay.spool.reading import Messages, records
from sesrelay.spool.records import MESSAGE_COLUMNS, RECORD_COLUMNS, Key, unpack_events, unpack_message, unpack_record

FIND_MAX = 1_000
BY_MESSAGE_ID = "SELECT id FROM message WHERE message_id IN (?, ?) AND message_id <> '' ORDER BY id LIMIT ?"
GREETINGS = (
    "SELECT json_extract(head, '$[8]') FROM message WHERE message_id IN (?, ?) AND message_id <> '' AND instr(head, ?)"
    " AND json_extract(head, '$[6]') = ?"
)  # as records has `head`
BY_REMOTE_ID = "SELECT DISTINCT message FROM delivery WHERE remote_id = ? AND remote_id IS NOT NULL ORDER BY message LIMIT ?"
OF_MESSAGE = f"SELECT {RECORD_COLUMNS} FROM delivery WHERE message = ? ORDER BY n"
RECENT = f"SELECT {MESSAGE_COLUMNS} FROM message ORDER BY id DESC LIMIT ?"
EVENTS = "SELECT items FROM event WHERE message = ? ORDER BY seq"


def listing(
    cursor: apsw.Cursor, match: Match, transports: Sequence[str], after: Key, limit: int
) -> tuple[list[DeliveryRecord], Key | None]:
    """Return what matches on one page, and where the next one starts, if there may be one."""
    page = selecting.page(cursor, match, transports, after, limit)
    return list(records(cursor, page.keys, Messages(cursor))), page.after


def show(cursor: apsw.Cursor, number: int) -> MessageRecord | None:
    fields = row(cursor, f"SELECT {MESSAGE_COLUMNS}, events FROM message WHERE id = ?", (number,))
    if fields is None:
        return None
    message = unpack_message(fields[:-1])
    deliveries = tuple(unpack_record(each, message) for each in rows(cursor, OF_MESSAGE, (number,)))
    later = [items for (items,) in rows(cursor, EVENTS, (number,))]
    return MessageRecord(message, deliveries, unpack_events([fields[-1], *later]))


def find(cursor: apsw.Cursor, any_id: str) -> list[str]:
    bare = bare_id(any_id)
    numbers: set[Row] = set()
    if queue_id.PATTERN.match(bare):
        numbers.update(rows(cursor, "SELECT id FROM message WHERE id = ?", (queue_id.decode(bare),)))
    numbers.update(rows(cursor, BY_MESSAGE_ID, (bare, f"<{bare}>", FIND_MAX)))
    for remote_id in ses_ids.meant(bare):
        numbers.update(rows(cursor, BY_REMOTE_ID, (remote_id, FIND_MAX)))
    return [queue_id.encode(number) for (number,) in sorted(numbers)]


def greetings(cursor: apsw.Cursor, message_id: str, listener: str, beginning: str) -> list[str]:
    bare = bare_id(message_id)
    found = rows(cursor, GREETINGS, (bare, f"<{bare}>", beginning, listener))
    return [str(helo) for (helo,) in found if str(helo).startswith(beginning)]


def recent(cursor: apsw.Cursor, limit: int) -> list[MessageRecord]:
    found = []
    for fields in rows(cursor, RECENT, (limit,)):
        message = unpack_message(fields)
        deliveries = tuple(unpack_record(each, message) for each in rows(cursor, OF_MESSAGE, (fields[0],)))
        found.append(MessageRecord(message, deliveries, ()))
    return found
