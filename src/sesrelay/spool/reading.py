"""Reading rows in order of arrival, in pages short enough that no reader holds up a checkpoint.

Invariant: no statement here looks at more than PAGE rows, and each page starts behind the last key of the one before.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast

import apsw

from sesrelay.mail.envelope import Message
from sesrelay.seams import DeliveryRecord
from sesrelay.spool.matching import Match
from sesrelay.spool.query import Row, row, rows, the_row
from sesrelay.spool.records import (
    DELIVERY_COLUMNS,
    HELD,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
    STATES,
    Key,
    unpack_message,
    unpack_record,
)

PAGE = 1_000
START: Key = (-1, -1)

OPEN_PAGE = (
    "SELECT message, n FROM delivery INDEXED BY delivery_open "
    "WHERE state = ? AND state < 3 AND transport = ? AND (message, n) > (?, ?) ORDER BY message, n LIMIT ?"
)
ALL_PAGE = "SELECT message, n FROM delivery WHERE (message, n) > (?, ?) ORDER BY message, n LIMIT ?"
OF_MESSAGE = "SELECT message, n FROM delivery WHERE message = ? AND n > ? ORDER BY n LIMIT ?"
DELIVERY = f"SELECT {DELIVERY_COLUMNS} FROM delivery WHERE message = ? AND n = ?"
RECORD = f"SELECT {RECORD_COLUMNS}, recipient FROM delivery WHERE message = ? AND n = ?"
MESSAGE = f"SELECT {MESSAGE_COLUMNS}, sender FROM message WHERE id = ?"


class Messages:
    """The messages that one read meets, each fetched and built once: they are immutable."""

    def __init__(self, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self._met: dict[int, tuple[Message, str]] = {}

    def __getitem__(self, number: int) -> Message:
        return self.with_sender(number)[0]

    def with_sender(self, number: int) -> tuple[Message, str]:
        """Return a message and its sender as filters compare it."""
        found = self._met.get(number)
        if found is None:
            fields = the_row(self._cursor, MESSAGE, (number,))
            found = self._met[number] = (unpack_message(fields[:-1]), fields[-1])
        return found


def open_keys(cursor: apsw.Cursor, states: Iterable[int], transports: Sequence[str], after: Key, limit: int) -> list[Key]:
    """Return the next keys in any of the open `states`, in order of arrival."""
    runs = [
        cast("list[Key]", rows(cursor, OPEN_PAGE, (state, transport, *after, limit)))
        for state in states
        if state <= HELD
        for transport in transports
    ]
    return runs[0] if len(runs) == 1 else list(islice(heapq.merge(*runs), limit))


def matching_keys(cursor: apsw.Cursor, match: Match, transports: Sequence[str], after: Key, limit: int) -> list[Key]:
    """Return the next keys that `match` has to look at; fewer than `limit` only at the end."""
    if match.ids is not None:
        return list(islice(_keys_of(cursor, match.ids, after, limit), limit))
    if any(state.final for state in match.states):
        return cast("list[Key]", rows(cursor, ALL_PAGE, (*after, limit)))
    if match.transport is not None:
        transports = [each for each in transports if each == match.transport]
    return open_keys(cursor, [code for code, state in enumerate(STATES) if state in match.states], transports, after, limit)


def _keys_of(cursor: apsw.Cursor, ids: Sequence[int], after: Key, limit: int) -> Iterator[Key]:
    for number in ids:
        if number >= after[0]:
            yield from cast("list[Key]", rows(cursor, OF_MESSAGE, (number, after[1] if number == after[0] else -1, limit)))


def records(
    cursor: apsw.Cursor, keys: Iterable[Key], messages: Messages, match: Match | None = None
) -> Iterator[tuple[Key, Row, DeliveryRecord]]:
    """Yield what `keys` stand for where it matches: key, row of RECORD_COLUMNS, record."""
    for key in keys:
        fields = row(cursor, RECORD, key)
        if fields is None:
            continue
        message, sender = messages.with_sender(key[0])
        if match is None or match(STATES[fields[2]], fields[3], sender, fields[-1], message.accepted):
            yield key, fields, unpack_record(fields[:-1], message)


def first_open(cursor: apsw.Cursor, transport: str, states: Iterable[int]) -> float | None:
    """Return when the oldest open message of a transport was accepted."""
    keys = open_keys(cursor, states, [transport], START, 1)
    if not keys:
        return None
    found = row(cursor, "SELECT accepted FROM message WHERE id = ?", (keys[0][0],))
    return None if found is None else float(found[0])
