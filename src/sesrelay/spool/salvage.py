"""A new store of all that can still be read of a damaged one.

Rows are taken page by page (`pages`), so that neither a broken index nor a lost root hides what is whole. What of a
message is lost is not guessed: where its content is there and a delivery is not, the delivery is held, reason
`salvaged`, for the operator to judge. What waits and has lost its content stays, so that somebody is told of it.

Invariant: the damaged store is only read; its large bodies are linked, or copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from sesrelay.mail import headers, queue_id
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.lineends import Canonical
from sesrelay.spool.files import Bodies
from sesrelay.spool.opening import create
from sesrelay.spool.pages import Pages, Row, Value
from sesrelay.spool.query import rows
from sesrelay.spool.records import HELD, message_row, unpack_events, unpack_message, written

SALVAGED = "salvaged"
UNKNOWN = "unknown@invalid"
"""Stands where a recipient's address is lost."""
TEXT_OR_NUMBER = (int, float)
RECIPIENTS_MAX = 100_000  # of one message: more is a number gone wrong
GROUP = 1_000  # rows in one statement

COUNTS = """
INSERT OR REPLACE INTO backlog (transport, nexthop, priority, state, n)
  SELECT transport, nexthop, priority, state, count(*) FROM delivery WHERE state < 3 GROUP BY 1, 2, 3, 4;
UPDATE total SET n = (SELECT count(DISTINCT message) FROM delivery WHERE state < 3) WHERE what = 'messages';
UPDATE total SET n = (SELECT coalesce(sum(size), 0) FROM message
  WHERE EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.id AND state < 3)) WHERE what = 'bytes';
"""
# Of two copies of a delivery the one further on is the later one.
LATER = (
    "(excluded.state > 2) > (delivery.state > 2) OR "
    "((excluded.state > 2) = (delivery.state > 2) AND excluded.attempts > delivery.attempts)"
)


@dataclass(slots=True)
class Found:
    """What was had of a damaged store. `bare`: contents of which nobody knows whom they are for."""

    messages: int = 0
    held: int = 0
    bare: tuple[str, ...] = ()


def salvage(damaged: Path, bodies: Path, into: Path) -> Found:
    """Make a store `into`/queue.db of what can be read of `damaged`. Raises: OSError, apsw.Error"""
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = into / "queue.db"
    create(made)
    kept = Bodies(into / "bodies")
    kept.prepare()
    db = apsw.Connection(str(made), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.pragma("synchronous", "OFF")  # a copy: what a power loss takes of it is made again
        pages = Pages(damaged)
        try:
            with db:
                _Copy(db).take(pages.rows())
        finally:
            pages.close()
        with db:
            found = _complete(db, bodies)
            _link_bodies(db, bodies, kept)
            db.execute(COUNTS)
        return found
    finally:
        db.close(True)


class _Copy:
    """Puts rows where they belong, told apart by their form."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._columns = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in ("message", "delivery")}
        self._waiting: dict[str, list[tuple[Value, ...]]] = {}

    def take(self, found: Iterator[Row]) -> None:
        for row in found:
            statement, bindings = self._place(row)
            if statement:
                group = self._waiting.setdefault(statement, [])
                group.append(bindings)
                if len(group) >= GROUP:
                    self._write(statement)
        for statement in list(self._waiting):
            self._write(statement)

    def _write(self, statement: str) -> None:
        group, self._waiting[statement] = self._waiting[statement], []
        try:
            with self._db:
                self._db.executemany(statement, group)
        except apsw.Error:
            for bindings in group:  # one row that makes no sense keeps nobody else's back
                with contextlib.suppress(apsw.Error):
                    self._db.execute(statement, bindings)

    def _place(self, row: Row) -> tuple[str, tuple[Value, ...]]:
        values = row.values
        match row.rowid, len(values):
            case int(rowid), 2 if values[0] is None and isinstance(values[1], bytes):
                return "INSERT OR IGNORE INTO content (message, body) VALUES (?, ?)", (rowid, values[1])
            case int(rowid), n if 8 <= n <= len(self._columns["message"]) and _is_message(rowid, values):
                return self._insert("message", n, "ON CONFLICT DO NOTHING"), (rowid, *values[1:])
            case None, 3 if _is_event(values):
                return "INSERT OR IGNORE INTO event (message, seq, items) VALUES (?, ?, ?)", values
            case None, n if 19 <= n <= len(self._columns["delivery"]) and _is_delivery(values):
                columns = self._columns["delivery"][:n]
                change = ", ".join(f'"{name}" = excluded."{name}"' for name in columns[2:])
                return self._insert("delivery", n, f"ON CONFLICT (message, n) DO UPDATE SET {change} WHERE {LATER}"), values
        return "", ()

    def _insert(self, table: str, n: int, otherwise: str) -> str:
        names = ", ".join(f'"{name}"' for name in self._columns[table][:n])
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * n)}) {otherwise}"


def _is_message(rowid: int, values: tuple[Value, ...]) -> bool:
    """Tell whether it is one, and whole: a flipped bit in its head or events would stop who reads them."""
    return (
        values[0] is None
        and rowid > 0
        and isinstance(values[1], TEXT_OR_NUMBER)
        and isinstance(values[2], int)
        and isinstance(values[5], int)
        and all(isinstance(values[n], str) for n in (3, 4, 6, 7))
        and _reads(lambda: unpack_message((rowid, values[1], values[2], values[4], values[6])))
        and _reads(lambda: unpack_events([str(values[7])]))
    )


def _is_delivery(values: tuple[Value, ...]) -> bool:
    return (
        all(isinstance(values[n], int) for n in (0, 1, 2, 5, 7, 8))
        and values[2] in range(5)
        and values[5] in range(3)
        and isinstance(values[6], TEXT_OR_NUMBER)
        and all(isinstance(values[n], str) for n in (3, 4, 10, 11, 12))
    )


def _is_event(values: tuple[Value, ...]) -> bool:
    number, seq, items = values
    return isinstance(number, int) and isinstance(seq, int) and isinstance(items, str) and _reads(lambda: unpack_events([items]))


def _reads(read: Callable[[], object]) -> bool:
    try:
        read()
    except (ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False
    return True


# --- what is missing ---------------------------------------------------------------------------------------------


def _complete(db: apsw.Connection, bodies: Path) -> Found:
    """Lay before the operator what has lost a part, and drop what no one waits for."""
    found = Found()
    db.execute(  # history of what ended has no use for content
        "DELETE FROM content WHERE message IN (SELECT message FROM delivery GROUP BY message HAVING min(state) > 2)"
    )
    for (number,) in rows(db.cursor(), "SELECT DISTINCT message FROM delivery WHERE message NOT IN (SELECT id FROM message)"):
        _make_message(db, number, bodies)
    db.execute("DELETE FROM delivery WHERE message NOT IN (SELECT id FROM message)")
    for number, *fields in rows(
        db.cursor(),
        "SELECT id, accepted, size, message_id, head FROM message WHERE id IN (SELECT message FROM content) OR stored = 1",
    ):
        found.held += _make_deliveries(db, number, (number, *fields))
    found.bare = tuple(
        queue_id.encode(number)
        for (number,) in rows(
            db.cursor(), "SELECT message FROM content WHERE message NOT IN (SELECT message FROM delivery) AND message > 0"
        )
    )
    db.execute(  # the content is what it is, whatever a flipped bit made of the number beside it
        "UPDATE message SET size = length(body) FROM content WHERE content.message = message.id AND size <> length(body)"
    )
    (found.messages,) = rows(db.cursor(), "SELECT count(DISTINCT message) FROM delivery WHERE state < 3")[0]
    return found


def _make_deliveries(db: apsw.Connection, number: int, fields: tuple[Value, ...]) -> int:
    """Hold a delivery for each recipient of whom none is left; return how many."""
    message = unpack_message(fields)
    db.execute("DELETE FROM delivery WHERE message = ? AND n NOT BETWEEN 0 AND ?", (number, len(message.envelope.recipients) - 1))
    known = {n for (n,) in rows(db.cursor(), "SELECT n FROM delivery WHERE message = ?", (number,))}
    missing = [
        (n, each.address) for n, each in enumerate(message.envelope.recipients) if n not in known and each.address != UNKNOWN
    ]
    for n, address in missing:
        db.execute(
            "INSERT INTO delivery (message, n, state, transport, nexthop, priority, due, attempts, doubts, warned, route, site, "
            "recipient, reason) "
            "VALUES (?, ?, ?, '', '', 1, ?, 0, 0, 0, '', '', ?, ?)",
            (number, n, HELD, message.accepted, address.lower(), SALVAGED),
        )
    return len(missing)


def _make_message(db: apsw.Connection, number: int, bodies: Path) -> None:
    """Make a message of its content and of what its deliveries tell; all of it waits for the operator."""
    name = queue_id.encode(number)
    in_file = (bodies / name).exists()
    content = rows(db.cursor(), "SELECT body FROM content WHERE message = ?", (number,))
    body = content[0][0] if content else (bodies / name).read_bytes() if in_file else None
    if body is None:
        return
    facts = headers.facts(body[: headers.head_length(body)])
    addresses: dict[int, str] = dict(rows(db.cursor(), "SELECT n, recipient FROM delivery WHERE message = ?", (number,)))
    recipients = tuple(Recipient(addresses.get(n, UNKNOWN)) for n in range(min(max(addresses) + 1, RECIPIENTS_MAX)))
    sender = facts.header_from[0] if facts.header_from else ""
    message = Message(
        name, Envelope(sender, recipients), Origin(), len(body), float((number >> 15) / (1 << 16)),
        facts.header_from, facts.message_id, facts.subject,
    )  # fmt: skip
    db.execute(
        "INSERT INTO message (id, accepted, size, sender, message_id, stored, head, events) VALUES (?,?,?,?,?,?,?,?)",
        written(message_row(message, number, (), in_file=not content)),
    )
    db.execute("UPDATE delivery SET state = ?, reason = ? WHERE message = ? AND state < 3", (HELD, SALVAGED, number))


def _link_bodies(db: apsw.Connection, bodies: Path, kept: Bodies) -> None:
    for (number,) in rows(
        db.cursor(), "SELECT id FROM message WHERE stored = 1 AND EXISTS (SELECT 1 FROM delivery WHERE message = id AND state < 3)"
    ):
        name = queue_id.encode(number)
        try:
            os.link(bodies / name, kept.folder / name)
        except FileNotFoundError:
            continue
        except OSError:
            shutil.copyfile(bodies / name, kept.folder / name)


def bare_content(store: Path, message: str) -> Canonical:
    """Return a content of `Found.bare`. Raises: apsw.Error"""
    db = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return Canonical(rows(db.cursor(), "SELECT body FROM content WHERE message = ?", (queue_id.decode(message),))[0][0])
    finally:
        db.close(True)
