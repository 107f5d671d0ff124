"""Between values and rows: what is written for a submission and a verdict, and what is read back.

What goes to the writer is plain, and becomes JSON there.

Invariant: what is packed and unpacked again is equal to what it was; only text that UTF-8 cannot carry is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Priority, State
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Owner, Recipient, Rung
from sesrelay.mail.filed import Filed
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.trace import Event
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import DeliveryRecord, SpoolError, Submission
from sesrelay.spool.matching import key
from sesrelay.spool.query import Row

STATES = (State.QUEUED, State.IN_FLIGHT, State.HELD, State.DELIVERED, State.FAILED)
CODE = {state: code for code, state in enumerate(STATES)}
QUEUED, IN_FLIGHT, HELD, DELIVERED, FAILED = range(5)

Key = tuple[int, int]

# ASCII only: a lone surrogate, which SQLite cannot take as text, passes as an escape.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_loads = json.loads

MESSAGE_COLUMNS = "id, accepted, size, message_id, head"
DELIVERY_COLUMNS = (
    "message, n, state, transport, nexthop, priority, due, attempts, doubts, warned, route, site, pinned, reason, reply, via"
)
RECORD_COLUMNS = DELIVERY_COLUMNS + ', "end", remote_id'


SIZE, STORED = 2, 5
"""Where a `message_row` has the size of the content, and whether that is in a file."""


class Packed(NamedTuple):
    """A submission on its way to the writer. `message`: see `message_row`; `content`: nothing, where it is not in the table."""

    number: int
    message: Row
    deliveries: list[Row]
    content: bytes


def pack(submission: Submission, *, in_file: bool, ended: bool = False) -> Packed:
    """Return the rows of `submission`; `ended`: its deliveries have. Raises: SpoolError for one that contradicts itself."""
    message = submission.message
    number = number_of(message.id)
    recipients = message.envelope.recipients
    deliveries: list[Row] = []
    for each in submission.deliveries:
        n = each.id.n
        recipient, place, state = each.recipient, each.placement, CODE[each.state]
        if each.id.message != message.id or not 0 <= n < len(recipients) or recipients[n] != recipient:
            raise SpoolError(f"{message.id}: delivery {n} names no recipient of the envelope")
        if (state > HELD) is not ended:
            raise SpoolError(f"{message.id}: delivery {n} has ended before it began")
        deliveries.append((
            number, n, state, *place.lane, int(place.priority), each.due, each.attempts, each.doubts, each.warned,
            place.route, place.site, key(recipient.address), each.pinned, text(each.reason), text(each.reply),
        ))  # fmt: skip
    if not deliveries:
        raise SpoolError(f"{message.id}: a message without a delivery")
    content = submission.content
    if in_file or ended:
        content = Canonical(b"")
    elif isinstance(content, Filed):  # small where its header was all that was large
        content = content.whole()
    return Packed(number, message_row(message, number, submission.events, in_file=in_file), deliveries, content)


def message_row(message: Message, number: int, events: Iterable[Event], *, in_file: bool) -> Row:
    """Return the row of a message, its last two columns plain: the writer makes it as it is `written`."""
    return (
        number, message.accepted, message.size, key(message.envelope.sender), text(message.message_id), int(in_file),
        _head(message), event_rows(events),
    )  # fmt: skip


def written(message: Row) -> Row:
    """Return the row of a message as flow.INSERT_MESSAGE has its columns in order."""
    *columns, _, events = message
    return (*columns, written_head(message), pack_events(events))


def written_head(message: Row) -> str:
    """Return the column `head` of such a row."""
    return _encode(message[-2])


def counted_for(delivery: Row) -> tuple[str, str, int, int]:
    """Return what the row of a delivery counts for in the backlog: transport, nexthop, priority, state."""
    _, _, state, transport, nexthop, priority, *_ = delivery
    return transport, nexthop, priority, state


def _head(message: Message) -> Row:
    envelope, origin, priority = message.envelope, message.origin, message.priority
    special = priority is not None or envelope.release is not None
    return (
        envelope.sender, [_recipient(each) for each in envelope.recipients], envelope.body, envelope.smtputf8,
        envelope.ret, envelope.envid,
        origin.listener, origin.client, origin.helo, origin.user, origin.tls,
        message.header_from, message.subject, message.report and _descent(message.report), message.changes,
        *([[origin.owner.uid, origin.owner.name]] if origin.owner else []),
        *([{"priority": None if priority is None else int(priority), "release": envelope.release}] if special else []),
    )  # fmt: skip


def _descent(report: Descent) -> Row:
    return (int(report.rung), report.tried, report.domains)


def _recipient(each: Recipient) -> str | Row:
    if each.notify is None and each.orcpt is None and each.hold is None:
        return each.address
    return (each.address, None if each.notify is None else sorted(each.notify), each.orcpt, each.hold)


def unpack_message(row: Row) -> Message:
    """Return the message of a row of MESSAGE_COLUMNS."""
    number, accepted, size, message_id, head = row
    (
        sender, recipients, body, smtputf8, ret, envid, listener, client, helo, user, tls, header_from, subject, report, changes,
        *rest,
    ) = _loads(head)  # fmt: skip
    owner = next((Owner(*each) for each in rest if isinstance(each, list)), None)
    special = next((each for each in rest if isinstance(each, dict)), {})
    envelope = Envelope(
        sender, tuple(_read_recipient(each) for each in recipients), body, smtputf8, ret, envid, special.get("release")
    )
    origin = Origin(listener, client, helo, user, tls, owner)
    priority = special.get("priority")
    return Message(
        queue_id.encode(number), envelope, origin, size, accepted, tuple(header_from), message_id, subject,
        _read_descent(report) if report else None, tuple(changes),
        None if priority is None else Priority(priority),
    )  # fmt: skip


def _read_descent(stored: Any) -> Descent:
    if stored is True:  # as it was stored while there was one way only
        return Descent()
    rung, tried, domains = stored
    return Descent(Rung(rung), tuple(tried), tuple(domains))


def _read_recipient(each: str | list[Any]) -> Recipient:
    if isinstance(each, str):
        return Recipient(each)
    address, notify, orcpt, hold = each
    return Recipient(address, None if notify is None else frozenset(notify), orcpt, hold)


def unpack_delivery(row: Row, message: Message) -> Delivery:
    """Return the delivery of a row of DELIVERY_COLUMNS."""
    _, n, state, transport, nexthop, priority, due, attempts, doubts, warned, route, site, pinned, reason, reply, via = row
    return Delivery(
        DeliveryId(message.id, n), message, message.envelope.recipients[n],
        Placement(route, LaneKey(transport, nexthop), Priority(priority), site),
        STATES[state], attempts, doubts, due, pinned, bool(warned), reason, reply, via,
    )  # fmt: skip


def unpack_record(row: Row, message: Message) -> DeliveryRecord:
    """Return the record of a row of RECORD_COLUMNS."""
    return DeliveryRecord(unpack_delivery(row[:-2], message), row[-2], row[-1])


def event_rows(events: Iterable[Event]) -> list[Row]:
    """Return events as they go to the writer: plain, and without a host where none is told."""
    return [tuple(event) if event.host else event[:-1] for event in events]


def pack_events(rows: Sequence[Row]) -> str:
    """Return `event_rows` as the store has them."""
    return _encode(rows)


def verdict_row(verdict: Verdict) -> Row:
    """Return the columns of a delivery that a verdict sets, as flow.SETTLE has them in order."""
    return (
        CODE[verdict.state], verdict.due, verdict.attempts, verdict.doubts, text(verdict.pinned), verdict.warned,
        text(verdict.reason), text(verdict.reply), verdict.end, text(verdict.remote_id),
    )  # fmt: skip


def verdict_of(row: Row) -> Verdict:
    """Return the verdict of such columns; whether a report was due is not among them."""
    state, due, attempts, doubts, pinned, warned, reason, reply, end, remote_id = row
    return Verdict(STATES[state], due, attempts, doubts, pinned, reason, reply, remote_id, warned, end)


def unpack_events(texts: Iterable[str]) -> tuple[Event, ...]:
    """Return all events of several rows, in order of time."""
    found = [_event(fields) for items in texts for fields in _loads(items)]
    found.sort(key=lambda event: event.time)
    return tuple(found)


def _event(fields: Any) -> Event:
    fields[10] = tuple(fields[10])
    return Event(*fields)


def number_of(message: str) -> int:
    """Return the number behind a queue id. Raises: SpoolError"""
    try:
        return queue_id.decode(message)
    except ValueError as error:
        raise SpoolError(str(error)) from error


def key_of(delivery: DeliveryId) -> Key:
    return number_of(delivery.message), delivery.n


def id_of(key: Key) -> DeliveryId:
    return DeliveryId(queue_id.encode(key[0]), key[1])


def text(value: str | None) -> str | None:
    """Return `value` as UTF-8 can carry it: what a remote host says may hold lone surrogates, and must not stop a commit."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")
