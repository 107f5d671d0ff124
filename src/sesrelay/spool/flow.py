"""Mail on its way, as operations of the writer: accepting, claiming, attempting, settling.

Each function runs inside the transaction that it is given, by the writer, and may be run again after all it
did was undone.

Invariant: the state of a delivery changes only together with the backlog, and content goes only with its last open
delivery.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

import apsw

from sesrelay.mail.delivery import Delivery, LaneKey, Priority, Stream
from sesrelay.seams import Claim, SpoolError, Superseded
from sesrelay.spool import wishes
from sesrelay.spool.claims import Standing
from sesrelay.spool.files import THRESHOLD
from sesrelay.spool.query import Row, row, rows, the_row
from sesrelay.spool.reading import PAGE, Messages
from sesrelay.spool.records import (
    DELIVERY_COLUMNS,
    HELD,
    IN_FLIGHT,
    QUEUED,
    SIZE,
    STORED,
    Key,
    Packed,
    counted_for,
    event_rows,
    id_of,
    pack_events,
    text,
    unpack_delivery,
    verdict_of,
    verdict_row,
    written,
)
from sesrelay.spool.transaction import Transaction

INSERT_MESSAGE = "INSERT INTO message (id, accepted, size, sender, message_id, stored, head, events) VALUES (?,?,?,?,?,?,?,?)"
INSERT_CONTENT = "INSERT INTO content (message, body) VALUES (?, ?)"
INSERT_DELIVERY = (
    "INSERT INTO delivery (message, n, state, transport, nexthop, priority, due, attempts, doubts, warned, route, site, "
    "recipient, pinned, reason, reply) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
STANDING = "SELECT state, transport, nexthop, priority, wish FROM delivery WHERE message = ? AND n = ?"
SETTLE = (
    "UPDATE delivery SET state = ?, due = ?, attempts = ?, doubts = ?, pinned = ?, warned = ?, reason = ?, reply = ?, "
    '"end" = ?, remote_id = ?, wish = NULL WHERE message = ? AND n = ?'
)
ATTEMPT = "UPDATE delivery SET state = 1, attempts = attempts + 1, due = ?, transport = ?, nexthop = ? WHERE message = ? AND n = ?"
POSTPONE = "UPDATE delivery SET due = ?, reason = coalesce(?, reason) WHERE message = ? AND n = ? AND state = 0"
REMAINS = (
    "SELECT size, stored, EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.id AND state < 3) "
    "FROM message WHERE id = ?"
)
INSERT_EVENT = (
    "INSERT INTO event (message, seq, items) VALUES (?1, (SELECT coalesce(max(seq), 0) + 1 FROM event WHERE message = ?1), ?2)"
)
CLAIM = (
    f"SELECT {DELIVERY_COLUMNS} FROM delivery INDEXED BY delivery_claim "
    "WHERE state = 0 AND transport = ? AND nexthop = ? AND priority = ? AND site = ? ORDER BY due, message, n"
)
BY_SITE = (
    "SELECT site, due, message, n FROM delivery INDEXED BY delivery_claim "
    "WHERE state = 0 AND transport = ? AND nexthop = ? AND priority = ? AND site >= ? ORDER BY site, due, message, n"
)
FIRST_SITE = BY_SITE.replace("site, due, message, n FROM", "site FROM") + " LIMIT 1"
FIRST_LANES = "SELECT DISTINCT transport, nexthop FROM backlog WHERE state = 0 AND n > 0 ORDER BY transport, nexthop LIMIT ?"
LANES = FIRST_LANES.replace("ORDER", "AND (transport, nexthop) > (?, ?) ORDER")
LANES_PAGE = PAGE // 4  # steps of an index in one operation: a lane takes some, and one more for each of its sites
DUE = DELIVERY_COLUMNS.split(", ").index("due")
NEXT = "\0"
"""Behind a text it makes the least one that is greater: where a step of an index goes on."""


def accept(tx: Transaction, packed: Packed, claimed: bool) -> None:
    cursor = tx.cursor
    try:
        cursor.execute(INSERT_MESSAGE, written(packed.message))
    except apsw.ConstraintError as error:
        raise SpoolError(f"{id_of((packed.number, 0)).message}: the queue id is taken") from error
    if not packed.message[STORED]:
        cursor.execute(INSERT_CONTENT, (packed.number, packed.content))
    try:
        if len(packed.deliveries) == 1:
            cursor.execute(INSERT_DELIVERY, packed.deliveries[0])
        else:
            cursor.executemany(INSERT_DELIVERY, packed.deliveries)
    except apsw.ConstraintError as error:
        raise SpoolError(f"{id_of((packed.number, 0)).message}: two deliveries for one recipient") from error
    count_accepted(tx, packed, claimed)


def count_accepted(tx: Transaction, packed: Packed, claimed: bool) -> None:
    """Take note of a message whose rows are written."""
    tx.tally.message(1, packed.message[SIZE])
    alone = packed.message[SIZE] if len(packed.deliveries) == 1 and not packed.message[STORED] else None
    for delivery in packed.deliveries:
        count = counted_for(delivery)
        tx.tally.add(count)
        key, (transport, nexthop, priority, state) = (packed.number, delivery[1]), count
        if claimed and state == QUEUED:
            tx.claims.take(key)
        if (claimed and state == QUEUED) or state == IN_FLIGHT:
            tx.claims.know(key, Standing(state, transport, nexthop, priority, alone))


def claim(tx: Transaction, lane: LaneKey, limit: int, now: float, passed_over: Collection[Stream], after: str) -> Claim:
    found: list[Delivery] = []
    due: dict[Stream, float] = {}
    messages = Messages(tx.db.cursor())
    for priority in Priority:
        sites = [site for site in _sites(tx, lane, priority) if (priority, site) not in passed_over]
        first = bisect_right(sites, after)
        turns = deque(_Run(tx, lane, Stream(priority, site)) for site in (*sites[first:], *sites[:first]))
        while turns:
            run = turns.popleft()
            if run.head is None or run.head[DUE] > now or len(found) >= limit:
                if run.head is not None:
                    due[run.stream] = run.head[DUE]
                run.close()
                continue
            fields = run.take()
            number, n, state, transport, nexthop, urgency, *_ = fields
            message = messages[number]
            alone = message.size if len(message.envelope.recipients) == 1 and message.size <= THRESHOLD else None
            tx.claims.know((number, n), Standing(state, transport, nexthop, urgency, alone))
            found.append(unpack_delivery(fields, message))
            turns.append(run)
    return Claim(tuple(found), due)


class _Run:
    """What one stream of a lane has to hand out, in order; `head` is the next of it."""

    __slots__ = ("_claims", "_cursor", "_rows", "head", "stream")

    def __init__(self, tx: Transaction, lane: LaneKey, stream: Stream) -> None:
        self.stream = stream
        self._claims = tx.claims
        self._cursor = tx.db.cursor()
        self._rows = cast("Iterator[Row]", self._cursor.execute(CLAIM, (*lane, int(stream.priority), stream.site)))
        self.head = self._next()

    def take(self) -> Row:
        assert self.head is not None
        taken = self.head
        self._claims.take((taken[0], taken[1]))
        self.head = self._next()
        return taken

    def close(self) -> None:
        self._cursor.close()

    def _next(self) -> Row | None:
        return next((fields for fields in self._rows if (fields[0], fields[1]) not in self._claims), None)


def _sites(tx: Transaction, lane: LaneKey, priority: Priority) -> Iterator[str]:
    """Yield the sites that have anything queued there, in order, by a step of the index for each."""
    found = row(tx.cursor, FIRST_SITE, (*lane, int(priority), ""))
    while found is not None:
        yield found[0]
        found = row(tx.cursor, FIRST_SITE, (*lane, int(priority), found[0] + NEXT))


def unclaim(tx: Transaction, keys: Sequence[Key]) -> None:
    for key in keys:
        tx.claims.give_back(key)


def open_attempt(tx: Transaction, keys: Sequence[Key], retry_at: float, lane: tuple[str, str] | None) -> list[Key]:
    opened: list[Key] = []
    for key in keys:
        standing = row(tx.cursor, STANDING, key)
        if standing is None or standing[0] != QUEUED:
            tx.claims.give_back(key)
            continue
        _, transport, nexthop, priority, _ = standing
        by = lane or (transport, nexthop)
        tx.cursor.execute(ATTEMPT, (retry_at, *by, *key))
        tx.tally.carry((transport, nexthop, priority, QUEUED), (*by, priority, IN_FLIGHT))
        opened.append(key)
    return opened


def settle(
    tx: Transaction,
    verdicts: Mapping[Key, Row],
    events: Sequence[Row],
    reports: Sequence[Packed],
    now: float,
    attempted: bool = True,
) -> dict[Key, float]:
    if not attempted:
        _still_waiting(tx, verdicts)
    due: dict[Key, float] = {}
    told: dict[int, list[Row]] = {}
    if events:
        told[next(iter(verdicts))[0]] = list(events)
    ended: set[int] = set()
    for key, asked in verdicts.items():
        tx.claims.give_back(key)
        standing = row(tx.cursor, STANDING, key)
        # An end once stored stands; what an operator holds, only news of its end may move.
        if standing is None or standing[0] > HELD or (standing[0] == HELD and asked[0] <= HELD):
            continue
        state, transport, nexthop, priority, wish = standing
        columns = asked
        if wish is not None:
            verdict = verdict_of(asked)
            granted = wishes.fulfil(verdict, wish, now)
            if granted is not verdict:
                columns = verdict_row(granted)
                recipient = Messages(tx.cursor)[key[0]].envelope.recipients[key[1]].address
                told.setdefault(key[0], []).extend(event_rows((wishes.event(wish, now, recipient, transport, nexthop),)))
        after, when, *_ = columns
        tx.cursor.execute(SETTLE, (*columns, *key))
        tx.tally.move(transport, nexthop, priority, state, after)
        if after > HELD:
            ended.add(key[0])
        elif after == QUEUED:
            due[key] = when
    for report in reports:
        accept(tx, report, False)
    for number, items in told.items():
        tx.cursor.execute(INSERT_EVENT, (number, pack_events(items)))
    finish(tx, ended)
    return due


def _still_waiting(tx: Transaction, keys: Iterable[Key]) -> None:
    """Raises: Superseded where one of them is not waiting unclaimed."""
    for key in keys:
        standing = row(tx.cursor, STANDING, key)
        if standing is None or standing[0] != QUEUED or key in tx.claims:
            raise Superseded(f"{id_of(key).message}: its state has changed meanwhile")


def finish(tx: Transaction, numbers: set[int]) -> None:
    """Remove the content of those messages that have no open delivery any more."""
    for number in numbers:
        size, stored, remains = the_row(tx.cursor, REMAINS, (number,))
        if remains:
            continue
        tx.tally.message(-1, -size)
        if stored:
            tx.ended.append(number)
        else:
            tx.cursor.execute("DELETE FROM content WHERE message = ?", (number,))


def postpone(tx: Transaction, keys: Sequence[Key], due: float, reason: str | None) -> None:
    tx.cursor.executemany(POSTPONE, [(due, text(reason), *key) for key in keys])
    unclaim(tx, keys)


def lanes(tx: Transaction, after: tuple[str, str] | None) -> tuple[dict[LaneKey, float], tuple[str, str] | None]:
    """Return a page of the lanes that have something to claim, and where the next page starts, if there is one."""
    tx.tally.flush(tx.cursor)
    found: dict[LaneKey, float] = {}
    listed = rows(tx.cursor, FIRST_LANES, (LANES_PAGE,)) if after is None else rows(tx.cursor, LANES, (*after, LANES_PAGE))
    steps = 0
    for place, each in enumerate(listed, 1):
        lane = LaneKey(*each)
        dues = [due for priority in Priority for due in _first_dues(tx, lane, priority)]
        if dues:
            found[lane] = min(dues)
        steps += 1 + len(dues)
        if steps >= LANES_PAGE and place < len(listed):
            return found, lane
    return found, LaneKey(*listed[-1]) if len(listed) == LANES_PAGE else None


def _first_dues(tx: Transaction, lane: LaneKey, priority: Priority) -> Iterator[float]:
    """Yield when the first unclaimed delivery of each site is due."""
    cursor = tx.db.cursor()
    start = ""
    while True:
        for site, due, number, n in cast("Iterator[Row]", cursor.execute(BY_SITE, (*lane, int(priority), start))):
            if (number, n) not in tx.claims:
                yield due
                start = site + NEXT
                break
        else:
            break
    cursor.close()
