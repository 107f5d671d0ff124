"""What operators read and change: pages over the store, and each verb on what a Filter means.

Invariant: reads run on connections that cannot write; a change runs on the writer, a page a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from sesrelay.mail import queue_id
from sesrelay.mail.delivery import State
from sesrelay.mail.trace import Event
from sesrelay.seams import DeliveryRecord, MessageRecord, Verb
from sesrelay.spool import wishes
from sesrelay.spool.flow import INSERT_EVENT, STANDING, finish
from sesrelay.spool.matching import Match
from sesrelay.spool.query import Row, row, rows, the_row
from sesrelay.spool.reading import RECORD, Messages, first_open, matching_keys, records
from sesrelay.spool.records import (
    CODE,
    HELD,
    IN_FLIGHT,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    STATES,
    Key,
    pack_events,
    unpack_events,
    unpack_message,
    unpack_record,
)
from sesrelay.spool.transaction import Transaction

FIND_MAX = 1_000
BY_MESSAGE_ID = "SELECT id FROM message WHERE message_id IN (?, ?) AND message_id <> '' ORDER BY id LIMIT ?"
BY_REMOTE_ID = "SELECT DISTINCT message FROM delivery WHERE remote_id = ? AND remote_id IS NOT NULL ORDER BY message LIMIT ?"
OF_MESSAGE = f"SELECT {RECORD_COLUMNS} FROM delivery WHERE message = ? ORDER BY n"
RECENT = f"SELECT {MESSAGE_COLUMNS} FROM message ORDER BY id DESC LIMIT ?"
EVENTS = "SELECT items FROM event WHERE message = ? ORDER BY seq"

HOLD = "UPDATE delivery SET state = 2, reason = 'operator', due = ? WHERE message = ? AND n = ?"
RELEASE = "UPDATE delivery SET state = 0, reason = NULL, doubts = 0, due = ? WHERE message = ? AND n = ?"
RETRY = "UPDATE delivery SET due = ? WHERE message = ? AND n = ?"
DELETE = "UPDATE delivery SET state = 4, reason = 'deleted', due = ? WHERE message = ? AND n = ?"
VIA = "UPDATE delivery SET via = ? WHERE message = ? AND n = ? AND pinned IS NULL"
WISH = "UPDATE delivery SET wish = ? WHERE message = ? AND n = ?"
STATEMENTS: dict[Verb, str] = {"hold": HOLD, "release": RELEASE, "retry": RETRY, "delete": DELETE}


def listing(
    cursor: apsw.Cursor, match: Match, transports: Sequence[str], after: Key, limit: int
) -> tuple[list[DeliveryRecord], Key | None]:
    """Return what matches on one page, and the last key looked at where more may follow."""
    keys = matching_keys(cursor, match, transports, after, limit)
    found = [record for _, _, record in records(cursor, keys, Messages(cursor), match)]
    return found, keys[-1] if len(keys) == limit else None


def show(cursor: apsw.Cursor, number: int) -> MessageRecord | None:
    fields = row(cursor, f"SELECT {MESSAGE_COLUMNS}, events FROM message WHERE id = ?", (number,))
    if fields is None:
        return None
    message = unpack_message(fields[:-1])
    deliveries = tuple(unpack_record(each, message) for each in rows(cursor, OF_MESSAGE, (number,)))
    later = [items for (items,) in rows(cursor, EVENTS, (number,))]
    return MessageRecord(message, deliveries, unpack_events([fields[-1], *later]))


def find(cursor: apsw.Cursor, any_id: str) -> list[str]:
    text = any_id.strip()
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    numbers: set[Row] = set()
    if queue_id.PATTERN.match(bare):
        numbers.update(rows(cursor, "SELECT id FROM message WHERE id = ?", (queue_id.decode(bare),)))
    numbers.update(rows(cursor, BY_MESSAGE_ID, (bare, f"<{bare}>", FIND_MAX)))
    numbers.update(rows(cursor, BY_REMOTE_ID, (bare, FIND_MAX)))
    return [queue_id.encode(number) for (number,) in sorted(numbers)]


def recent(cursor: apsw.Cursor, limit: int) -> list[MessageRecord]:
    found = []
    for fields in rows(cursor, RECENT, (limit,)):
        message = unpack_message(fields)
        deliveries = tuple(unpack_record(each, message) for each in rows(cursor, OF_MESSAGE, (fields[0],)))
        found.append(MessageRecord(message, deliveries, ()))
    return found


def oldest(cursor: apsw.Cursor, counts: Iterable[tuple[str, int]]) -> dict[str, float]:
    """Return when the oldest open message of each transport was accepted; `counts`: what transports and states there are."""
    states: dict[str, list[int]] = {}
    for transport, state in counts:
        states.setdefault(transport, []).append(state)
    found = ((transport, first_open(cursor, transport, those)) for transport, those in states.items())
    return {transport: moment for transport, moment in found if moment is not None}


def change(
    tx: Transaction, verb: Verb, match: Match, after: Key, limit: int, now: float, via: str | None = None
) -> tuple[int, int, Key | None]:
    """Do `verb` to what matches on one page; return how many it looked at and changed, and the last key where more may follow."""
    cursor, messages = tx.cursor, Messages(tx.cursor)
    keys = matching_keys(cursor, match, tx.tally.transports(), after, limit)
    changed = 0
    ended: set[int] = set()
    told: dict[int, list[Event]] = {}
    for key in keys:
        *fields, recipient = the_row(cursor, RECORD, key)
        before, transport, nexthop, priority = fields[2:6]
        message, sender = messages.with_sender(key[0])
        if not match(STATES[before], transport, sender, recipient, message.accepted):
            continue
        wish = the_row(cursor, STANDING, key)[4] if before == IN_FLIGHT else None
        decision = wishes.decide(verb, STATES[before], wish)
        if decision is None:
            continue
        changed += 1
        if via is not None:
            cursor.execute(VIA, (via, *key))
        if decision.state is State.IN_FLIGHT:
            cursor.execute(WISH, (decision.wish, *key))
            continue
        state = CODE[decision.state]
        cursor.execute(STATEMENTS[verb], (now, *key))
        tx.tally.move(transport, nexthop, priority, before, state)
        address = message.envelope.recipients[key[1]].address
        told.setdefault(key[0], []).append(wishes.event(verb, now, address, transport, nexthop))
        if state > HELD:
            ended.add(key[0])
    for number, events in told.items():
        cursor.execute(INSERT_EVENT, (number, pack_events(events)))
    finish(tx, ended)
    return len(keys), changed, keys[-1] if len(keys) == limit else None
