"""Reading rows with types, as apsw says only that a column may be anything; and many rows in one statement.

Each statement has its price, and on a thread costs taking Python's lock back from the event loop as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, cast

import apsw

from sesrelay.seams import SpoolError

Row = tuple[Any, ...]


def rows(cursor: apsw.Cursor, statement: str, bindings: Row = ()) -> list[Row]:
    return cast("list[Row]", cursor.execute(statement, bindings).fetchall())


def row(cursor: apsw.Cursor, statement: str, bindings: Row = ()) -> Row | None:
    return cast("Row | None", cursor.execute(statement, bindings).fetchone())


def the_row(cursor: apsw.Cursor, statement: str, bindings: Row = ()) -> Row:
    """Return a row that must be there. Raises: SpoolError"""
    found = row(cursor, statement, bindings)
    if found is None:
        raise SpoolError("the store is inconsistent: a required row is missing")
    return found


SIZES = (*range(1, 17), 32, 64)
"""Rows of one statement: few different ones, so that all stay prepared."""


def spread(statement: str, rows: Sequence[Row]) -> Iterator[tuple[str, Row, int]]:
    """Yield the statements that take all `rows` where `statement` says {rows}: each with its bindings, and how many they are."""
    start = 0
    while left := len(rows) - start:
        size = SIZES[bisect_right(SIZES, left) - 1]
        part = rows[start : start + size]
        yield sized(statement, size, len(part[0])), tuple(chain.from_iterable(part)), size
        start += size


def write(cursor: apsw.Cursor, statement: str, rows: Sequence[Row]) -> None:
    """Run `statement` for all `rows`."""
    for sql, bindings, _ in spread(statement, rows):
        cursor.execute(sql, bindings)


@cache
def sized(statement: str, size: int, columns: int) -> str:
    """Return `statement` for `size` rows."""
    row = f"({','.join('?' * columns)})"
    return statement.replace("{rows}", "VALUES " + ",".join([row] * size))
