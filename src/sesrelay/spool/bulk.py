"""What the hot path does to the store, for a whole group of operations in a few statements.

A statement of SQLite's runs without Python's lock, and each one costs taking the lock back from the event loop; so the
rows of all that waits go in together. One operation alone goes the plain way of `flow`, and so does a group in which
anything fails: what is done here is what `flow` does, and no more.

Invariant: operations of one run concern different deliveries, or are left to `flow` one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

from sesrelay.mail.delivery import DeliveryId, LaneKey
from sesrelay.mail.trace import Event
from sesrelay.policy.verdict import Verdict
from sesrelay.spool import flow
from sesrelay.spool.query import Row
from sesrelay.spool.records import CODE, HELD, IN_FLIGHT, QUEUED, Key, Packed, id_of, pack_events
from sesrelay.spool.transaction import Transaction

SIZES = (32, 8, 4, 2, 1)
"""Rows of one statement: few different ones, so that all stay prepared."""

Standing = tuple[int, str, str, int, str | None]
"""State, transport, nexthop, priority, wish: see flow.STANDING."""

ADD_MESSAGES = flow.INSERT_MESSAGE.partition(" VALUES")[0]
ADD_CONTENTS = flow.INSERT_CONTENT.partition(" VALUES")[0]
ADD_DELIVERIES = flow.INSERT_DELIVERY.partition(" VALUES")[0]
STANDINGS = (
    "SELECT json_group_array(json_array(d.message, d.n, d.state, d.transport, d.nexthop, d.priority, d.wish)) "
    "FROM ({rows}) AS v CROSS JOIN delivery AS d WHERE d.message = v.column1 AND d.n = v.column2"
)
OPEN = (
    "UPDATE delivery SET state = 1, attempts = attempts + 1, due = v.column3, transport = v.column4, nexthop = v.column5 "
    "FROM ({rows}) AS v WHERE message = v.column1 AND n = v.column2"
)
SETTLE = (
    "UPDATE delivery SET state = v.column3, due = v.column4, attempts = v.column5, doubts = v.column6, pinned = v.column7, "
    'warned = v.column8, reason = v.column9, reply = v.column10, "end" = v.column11, remote_id = v.column12, wish = NULL '
    "FROM ({rows}) AS v WHERE message = v.column1 AND n = v.column2"
)
TELL = (
    "INSERT INTO event (message, seq, items) SELECT column1, "
    "(SELECT coalesce(max(seq), 0) + 1 FROM event WHERE message = column1), column2 FROM ({rows})"
)
ENDED = (
    "SELECT json_group_array(json_array(m.id, m.size, m.stored)) FROM ({rows}) AS v CROSS JOIN message AS m "
    "WHERE m.id = v.column1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = m.id AND state < 3)"
)
FORGET = "DELETE FROM content WHERE message IN ({rows})"

R_co = TypeVar("R_co", covariant=True)


class Operation(Protocol[R_co]):
    """An operation that can go with others of its kind."""

    def alone(self, tx: Transaction) -> R_co: ...


@dataclass(slots=True)
class Accept:
    packed: Packed
    claimed: bool

    def alone(self, tx: Transaction) -> None:
        flow.accept(tx, self.packed, self.claimed)


@dataclass(slots=True)
class Open:
    keys: Mapping[Key, DeliveryId]
    retry_at: float
    lane: LaneKey | None

    def alone(self, tx: Transaction) -> frozenset[DeliveryId]:
        return flow.open_attempt(tx, self.keys, self.retry_at, self.lane)


@dataclass(slots=True)
class Settle:
    """The end of an attempt."""

    verdicts: Mapping[Key, Verdict]
    events: Sequence[Event]
    reports: Sequence[Packed]
    now: float

    def alone(self, tx: Transaction) -> dict[DeliveryId, float]:
        return flow.settle(tx, self.verdicts, self.events, self.reports, self.now)


def accept(tx: Transaction, operations: Sequence[Accept]) -> list[None]:
    """Store messages. Raises: apsw.ConstraintError for a queue id that is taken"""
    packed = [each.packed for each in operations]
    _write(tx, ADD_MESSAGES + " {rows}", [each.message for each in packed])
    _write(tx, ADD_CONTENTS + " {rows}", [(each.number, each.content) for each in packed if not each.message[5]])
    _write(tx, ADD_DELIVERIES + " {rows}", [row for each in packed for row in each.deliveries])
    for operation in operations:
        flow.count_accepted(tx, operation.packed, operation.claimed)
    return [None] * len(operations)


def open_attempts(tx: Transaction, operations: Sequence[Open]) -> list[frozenset[DeliveryId]]:
    """Put attempts on record; each operation gets those of its deliveries that were still queued."""
    standings = _standings(tx, [key for each in operations for key in each.keys])
    rows: list[Row] = []
    results: list[frozenset[DeliveryId]] = []
    for operation in operations:
        opened = []
        for key, delivery in operation.keys.items():
            standing = standings.get(key)
            if standing is None or standing[0] != QUEUED:
                tx.claims.give_back(key)
                continue
            _, transport, nexthop, priority, _ = standing
            by = operation.lane or (transport, nexthop)
            rows.append((*key, operation.retry_at, *by))
            tx.tally.carry((transport, nexthop, priority, QUEUED), (*by, priority, IN_FLIGHT))
            opened.append(delivery)
        results.append(frozenset(opened))
    _write(tx, OPEN, rows)
    return results


def settle(tx: Transaction, operations: Sequence[Settle]) -> list[dict[DeliveryId, float]]:
    """Store the ends of attempts; each operation gets when those that are queued again are due."""
    standings = _standings(tx, [key for each in operations for key in each.verdicts])
    met: set[int] = set()
    rows: list[Row] = []
    told: list[Row] = []
    ended: dict[Row, None] = {}
    results: list[dict[DeliveryId, float]] = []
    special: list[int] = []
    for place, operation in enumerate(operations):
        due: dict[DeliveryId, float] = {}
        results.append(due)
        number = next(iter(operation.verdicts))[0]
        if number in met or _is_special(operation, standings):
            special.append(place)
            continue
        met.add(number)
        for key, verdict in operation.verdicts.items():
            tx.claims.give_back(key)
            state, transport, nexthop, priority, _ = standings[key]
            after = CODE[verdict.state]
            rows.append((*key, *flow.settled(verdict, after)))
            tx.tally.move(transport, nexthop, priority, state, after)
            if after > HELD:
                ended[(number,)] = None
            elif after == QUEUED:
                due[id_of(key)] = verdict.due
        told.append((number, pack_events(operation.events)))
    _write(tx, SETTLE, rows)
    _write(tx, TELL, told)
    _finish(tx, list(ended))
    for place in special:
        results[place] = operations[place].alone(tx)
    return results


def _is_special(operation: Settle, standings: Mapping[Key, Standing]) -> bool:
    """Tell whether anything but the plain end of an attempt is to be done: `flow` knows what."""
    if operation.reports or not operation.events:
        return True
    found = [standings.get(key) for key in operation.verdicts]
    return any(standing is None or standing[0] != IN_FLIGHT or standing[4] is not None for standing in found)


def _finish(tx: Transaction, numbers: Sequence[Row]) -> None:
    """Remove the content of those messages that have no open delivery any more."""
    gone: list[Row] = []
    for number, size, stored in _read(tx, ENDED, numbers):
        tx.tally.message(-1, -size)
        if stored:
            tx.ended.append(number)
        else:
            gone.append((number,))
    _write(tx, FORGET, gone)


def _standings(tx: Transaction, keys: Sequence[Key]) -> dict[Key, Standing]:
    return {(message, n): tuple(rest) for message, n, *rest in _read(tx, STANDINGS, keys)}


def _read(tx: Transaction, statement: str, rows: Sequence[Row]) -> Iterator[list[Any]]:
    """Yield what an aggregate of JSON arrays holds: one row to fetch, however many it stands for."""
    for sql, bindings in _spread(statement, rows):
        for (found,) in cast("Iterator[tuple[str]]", tx.cursor.execute(sql, bindings)):
            yield from json.loads(found)


def _write(tx: Transaction, statement: str, rows: Sequence[Row]) -> None:
    for sql, bindings in _spread(statement, rows):
        tx.cursor.execute(sql, bindings)


def _spread(statement: str, rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Yield the statements that take all `rows`, with their bindings."""
    start = 0
    for size in SIZES:
        while len(rows) - start >= size:
            part = rows[start : start + size]
            yield _sized(statement, size, len(part[0])), tuple(chain.from_iterable(part))
            start += size


@cache
def _sized(statement: str, size: int, columns: int) -> str:
    row = f"({','.join('?' * columns)})"
    return statement.replace("{rows}", "VALUES " + ",".join([row] * size))


TOGETHER: dict[type, Callable[[Transaction, Any], list[Any]]] = {Accept: accept, Open: open_attempts, Settle: settle}
"""Each kind's way for many; also the order in which kinds go."""
