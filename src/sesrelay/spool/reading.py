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
from sesrelay.spool.query import row, rows, the_row
from sesrelay.spool.records import (
    DELIVERY_COLUMNS,
    HELD,
    MESSAGE_COLUMNS,
    RECORD_COLUMNS,
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
DELIVERY = f"SELECT {DELIVERY_COLUMNS} FROM delivery WHERE message = ? AND n = ?"
RECORD = f"SELECT {RECORD_COLUMNS} FROM delivery WHERE message = ? AND n = ?"
MESSAGE = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?"


class Messages:
    """The messages that one read meets, each fetched and built once: they are immutable."""

    def __init__(self, cursor: apsw.Cursor) -> None:
        self._cursor = cursor
        self._met: dict[int, Message] = {}

    def __getitem__(self, number: int) -> Message:
        found = self._met.get(number)
        if found is None:
            found = self._met[number] = unpack_message(the_row(self._cursor, MESSAGE, (number,)))
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


def records(cursor: apsw.Cursor, keys: Iterable[Key], messages: Messages) -> Iterator[DeliveryRecord]:
    """Yield what `keys` stand for."""
    for key in keys:
        fields = row(cursor, RECORD, key)
        if fields is not None:
            yield unpack_record(fields, messages[key[0]])
