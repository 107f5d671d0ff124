"""Reading rows with types: apsw says only that a column may be anything."""

from __future__ import annotations

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
        raise SpoolError("the store contradicts itself: a row that must be there is missing")
    return found
