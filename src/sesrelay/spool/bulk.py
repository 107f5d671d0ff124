"""What the hot path does to the store, for a whole group of operations in a few statements.

Each statement has its price, and on a thread costs taking Python's lock back from the event loop as well; so the
rows of all that waits go in together, and what memory knows of a delivery is not read again: each statement demands it
instead, and where a row is not as it is known, the group has failed. Then, as whenever anything in a group fails, its
operations go one by one the plain way of `flow`: what is done here is what `flow` does, and no more.

Invariant: operations of one run concern different deliveries, or are left to `flow` one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import apsw

from sesrelay.spool import flow
from sesrelay.spool.claims import Standing
from sesrelay.spool.query import Row, row, spread, write
from sesrelay.spool.records import HELD, IN_FLIGHT, QUEUED, STORED, Key, Packed, pack_events, written
from sesrelay.spool.transaction import Transaction

ADD_MESSAGES = flow.INSERT_MESSAGE.partition(" VALUES")[0] + " {rows}"
ADD_CONTENTS = flow.INSERT_CONTENT.partition(" VALUES")[0] + " {rows}"
ADD_DELIVERIES = flow.INSERT_DELIVERY.partition(" VALUES")[0] + " {rows}"
STANDINGS = (
    "SELECT json_group_array(json_array(d.message, d.n, d.state, d.transport, d.nexthop, d.priority)) "
    "FROM ({rows}) AS v CROSS JOIN delivery AS d WHERE d.message = v.column1 AND d.n = v.column2 AND d.wish IS NULL"
)
_AS_KNOWN = "WHERE message = v.column1 AND n = v.column2 AND transport = v.column3 AND nexthop = v.column4 AND priority = v.column5"
OPEN = (
    "UPDATE delivery SET state = 1, attempts = attempts + 1, due = v.column6, transport = v.column7, nexthop = v.column8 "
    f"FROM ({{rows}}) AS v {_AS_KNOWN} AND state = 0"
)
SETTLE = (
    "UPDATE delivery SET state = v.column6, due = v.column7, attempts = v.column8, doubts = v.column9, pinned = v.column10, "
    'warned = v.column11, reason = v.column12, reply = v.column13, "end" = v.column14, remote_id = v.column15, wish = NULL '
    f"FROM ({{rows}}) AS v {_AS_KNOWN} AND state = 1 AND wish IS NULL"
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
BODY = "SELECT body FROM content WHERE message = ? AND typeof(body) = 'blob' AND length(body) = ?"

R_co = TypeVar("R_co", covariant=True)
Begun = tuple[list[Key], bytes | None]
"""The deliveries of which an attempt is on record, and the content: it is added once that is committed, see `Committer`."""


class Otherwise(Exception):
    """A row is not as it was known: an operator, or what came before in the same group, has changed it."""


class Operation(Protocol[R_co]):
    """An operation that can go with others of its kind; its fields are plain, as it goes to a writer as a tuple of them."""

    def alone(self, tx: Transaction) -> R_co: ...

    def __iter__(self) -> Iterator[Any]: ...


class Accept(NamedTuple):
    """A message to be stored. `message` and what follows: see `Packed`."""

    number: int
    message: Row
    deliveries: list[Row]
    content: bytes
    claimed: bool

    def alone(self, tx: Transaction) -> None:
        flow.accept(tx, self.packed, self.claimed)

    @property
    def packed(self) -> Packed:
        return Packed(*self[:4])


class Open(NamedTuple):
    """The beginning of an attempt. `read`: see `seams.Spool.open_attempt`."""

    keys: Sequence[Key]
    retry_at: float
    lane: tuple[str, str] | None
    read: int | None

    def alone(self, tx: Transaction) -> Begun:
        return flow.open_attempt(tx, self.keys, self.retry_at, self.lane), None

    def content(self, cursor: apsw.Cursor) -> bytes | None:
        """Return the content that is wanted, if it is at hand. Raises: apsw.Error"""
        found = row(cursor, BODY, (self.keys[0][0], self.read))
        return None if found is None else found[0]


class Settle(NamedTuple):
    """The end of an attempt. `verdicts`: `verdict_row`s; `events`: `event_rows`."""

    verdicts: Mapping[Key, Row]
    events: Sequence[Row]
    reports: Sequence[Packed]
    now: float

    def alone(self, tx: Transaction) -> dict[Key, float]:
        return flow.settle(tx, self.verdicts, self.events, self.reports, self.now)


def accept(tx: Transaction, operations: Sequence[Accept]) -> list[None]:
    """Store messages. Raises: apsw.ConstraintError for a queue id that is taken"""
    write(tx.cursor, ADD_MESSAGES, [written(each.message) for each in operations])
    write(tx.cursor, ADD_CONTENTS, [(each.number, each.content) for each in operations if not each.message[STORED]])
    write(tx.cursor, ADD_DELIVERIES, [row for each in operations for row in each.deliveries])
    for operation in operations:
        flow.count_accepted(tx, operation.packed, operation.claimed)
    return [None] * len(operations)


def open_attempts(tx: Transaction, operations: Sequence[Open]) -> list[Begun]:
    """Put attempts on record; each operation gets those of its deliveries that were still queued."""
    standings = _standings(tx, [key for each in operations for key in each.keys])
    rows: list[Row] = []
    results: list[list[Key]] = []
    for operation in operations:
        opened: list[Key] = []
        for key in operation.keys:
            standing = standings.get(key)
            if standing is None or standing.state != QUEUED:
                tx.claims.give_back(key)
                continue
            _, transport, nexthop, priority, alone = standing
            by = operation.lane or (transport, nexthop)
            rows.append((*key, transport, nexthop, priority, operation.retry_at, *by))
            tx.tally.carry((transport, nexthop, priority, QUEUED), (*by, priority, IN_FLIGHT))
            tx.claims.know(key, Standing(IN_FLIGHT, *by, priority, alone))
            opened.append(key)
        results.append(opened)
    _write_known(tx, OPEN, rows)
    return [(opened, None) for opened in results]


def settle(tx: Transaction, operations: Sequence[Settle]) -> list[dict[Key, float]]:
    """Store the ends of attempts; each operation gets when those that are queued again are due."""
    standings = _standings(tx, [key for each in operations for key in each.verdicts])
    met: set[int] = set()
    rows: list[Row] = []
    told: list[Row] = []
    ended: dict[int, int | None] = {}
    results: list[dict[Key, float]] = []
    special: list[int] = []
    for place, operation in enumerate(operations):
        due: dict[Key, float] = {}
        results.append(due)
        number = next(iter(operation.verdicts))[0]
        if number in met or _is_special(operation, standings):
            special.append(place)
            continue
        met.add(number)
        for key, columns in operation.verdicts.items():
            tx.claims.give_back(key)
            state, transport, nexthop, priority, alone = standings[key]
            after, when, *_ = columns
            rows.append((*key, transport, nexthop, priority, *columns))
            tx.tally.move(transport, nexthop, priority, state, after)
            if after > HELD:
                ended[number] = alone
            elif after == QUEUED:
                due[key] = when
        told.append((number, pack_events(operation.events)))
    _write_known(tx, SETTLE, rows)
    write(tx.cursor, TELL, told)
    _finish(tx, ended)
    for place in special:
        results[place] = operations[place].alone(tx)
    return results


def _is_special(operation: Settle, standings: Mapping[Key, Standing]) -> bool:
    """Tell whether anything but the plain end of an attempt is to be done: `flow` knows what."""
    if operation.reports or not operation.events:
        return True
    for key in operation.verdicts:
        standing = standings.get(key)
        if standing is None or standing.state != IN_FLIGHT:
            return True
    return False


def _finish(tx: Transaction, ended: Mapping[int, int | None]) -> None:
    """Remove the content of those messages that have no open delivery any more; see `Standing.alone`."""
    gone = [(number,) for number, size in ended.items() if size is not None]
    for size in ended.values():
        if size is not None:
            tx.tally.message(-1, -size)
    _write_known(tx, FORGET, gone)
    others: list[Row] = []
    for number, size, stored in _read(tx, ENDED, [(number,) for number, size in ended.items() if size is None]):
        tx.tally.message(-1, -size)
        if stored:
            tx.ended.append(number)
        else:
            others.append((number,))
    write(tx.cursor, FORGET, others)


def _standings(tx: Transaction, keys: Iterable[Key]) -> dict[Key, Standing]:
    """Return how deliveries stand, as far as it is known or the store says so; none with a wish of an operator's."""
    found: dict[Key, Standing] = {}
    unknown: list[Key] = []
    for key in keys:
        standing = tx.claims.known(key)
        if standing is None:
            unknown.append(key)
        else:
            found[key] = standing
    for message, n, *rest in _read(tx, STANDINGS, unknown):
        found[message, n] = Standing(*rest)
    return found


def _read(tx: Transaction, statement: str, rows: Sequence[Row]) -> Iterator[list[Any]]:
    """Yield what an aggregate of JSON arrays holds: one row to fetch, however many it stands for."""
    for sql, bindings, _ in spread(statement, rows):
        for (found,) in cast("Iterator[tuple[str]]", tx.cursor.execute(sql, bindings)):
            yield from json.loads(found)


def _write_known(tx: Transaction, statement: str, rows: Sequence[Row]) -> None:
    """Run `statement`, which changes one row for each of `rows`. Raises: Otherwise, where one is not as it was known"""
    for sql, bindings, expected in spread(statement, rows):
        tx.cursor.execute(sql, bindings)
        if tx.db.changes() != expected:
            raise Otherwise


TOGETHER: dict[type, Callable[[Transaction, Any], list[Any]]] = {Accept: accept, Open: open_attempts, Settle: settle}
"""Each kind's way for many; also the order in which kinds go."""
_KINDS = tuple(TOGETHER)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def plain(operation: Operation[Any]) -> Row:
    """Return an operation as it goes to a writer elsewhere: pickled with its class, it would cost three times as much."""
    return (_NUMBERS[type(operation)], *operation)


def made_of(plain: Row) -> Operation[Any]:
    """Return the operation."""
    number, *fields = plain
    return cast("Operation[Any]", _KINDS[number](*fields))
