"""A message between two queues: the document that lies beside its .eml file, made and read.

Invariant: what is read back is the message that was written, with those deliveries that have not ended; nothing is
guessed. Source: docs/export.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast, get_args

from sesrelay.control import documents
from sesrelay.mail import queue_id
from sesrelay.mail.address import check
from sesrelay.mail.dates import rfc3339
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Owner, Recipient, Rung
from sesrelay.mail.lineends import canonical
from sesrelay.mail.priority import Priority
from sesrelay.mail.trace import Event, EventName
from sesrelay.policy.retry import AMBIGUOUS_WAIT, DOUBTS_MAX
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.seams import DeliveryRecord, Document, MessageRecord, Submission, Unfit

VERSION = 1
NOT_PLACED = Placement("", LaneKey("", ""))
"""Where a delivery waits is decided by the queue that takes it."""
_YEARS = (1970, 9999)
EVENT_FIELDS = (
    "recipient", "transport", "nexthop", "outcome", "reply", "remote_id", "duration", "tls",
)  # fmt: skip


def document(record: MessageRecord) -> Document:
    """Return what stands beside the content of a message."""
    one, envelope, origin = record.message, record.message.envelope, record.message.origin
    return {
        "version": VERSION,
        "id": one.id,
        "accepted": _in_full(one.accepted),
        "sender": envelope.sender,
        "recipients": _recipients(envelope, record.deliveries),
        "body": envelope.body,
        "smtputf8": envelope.smtputf8,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "release": None if envelope.release is None else _in_full(envelope.release),
        "priority": None if one.priority is None else one.priority.name.lower(),
        "message_id": one.message_id or None,
        "header_from": list(one.header_from),
        "subject": one.subject or None,
        "size": one.size,
        "report": None if one.report is None else _descent(one.report),
        "changes": list(one.changes),
        "origin": {
            "listener": origin.listener,
            "client": origin.client,
            "helo": origin.helo,
            "user": origin.user,
            "tls": origin.tls,
            "owner": None if origin.owner is None else {"uid": origin.owner.uid, "name": origin.owner.name},
        },
        "events": [{**documents.event(each), "time": _in_full(each.time)} for each in record.events],
    }


def _descent(report: Descent) -> Document:
    return {"rung": report.rung.name.lower(), "tried": list(report.tried), "domains": list(report.domains)}


def _read_descent(given: Any) -> Descent | None:
    if not isinstance(given, Mapping):
        return Descent() if given else None
    return Descent(Rung[str(given["rung"]).upper()], _texts(given["tried"]), _texts(given["domains"]))


def _recipients(envelope: Envelope, deliveries: tuple[DeliveryRecord, ...]) -> list[Document]:
    known = {record.delivery.id.n: record for record in deliveries}
    return [_recipient(each, known.get(n)) for n, each in enumerate(envelope.recipients)]


def _recipient(one: Recipient, record: DeliveryRecord | None) -> Document:
    """Describe a recipient; `state` is null where the store knows nothing of a delivery for it."""
    delivery = record.delivery if record else None
    return {
        "address": one.address,
        "notify": None if one.notify is None else sorted(one.notify),
        "orcpt": one.orcpt,
        "hold": one.hold,
        "state": delivery.state.value if delivery else None,
        "attempts": delivery.attempts if delivery else 0,
        "doubts": delivery.doubts if delivery else 0,
        "warned": delivery.warned if delivery else False,
        "pinned": delivery.pinned if delivery else None,
        "via": delivery.via if delivery else None,
        "reason": delivery.reason if delivery else None,
        "reply": delivery.reply if delivery else None,
        "outcome": record.end if record else None,
        "remote_id": record.remote_id if record else None,
    }


def submission(given: Mapping[str, Any], content: bytes, now: float) -> Submission:
    """Return the message of a document, not placed yet, ready to be stored here. Raises: Unfit"""
    try:
        return _submission(given, content, now)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Unfit(f"the envelope is not one that `queue export` writes: {type(error).__name__}: {error}") from error


def _submission(given: Mapping[str, Any], content: bytes, now: float) -> Submission:
    if given["version"] != VERSION:
        raise Unfit(f"it was exported by another version (format {given['version']}; this one knows {VERSION})")
    queue_id.decode(given["id"])
    text, receipts = canonical(content)
    if not text:
        raise Unfit("its content is empty")
    origin = given["origin"]
    owner = None if origin["owner"] is None else Owner(_count(origin["owner"]["uid"]), str(origin["owner"]["name"]))
    recipients = tuple(_read_recipient(each) for each in given["recipients"])
    envelope = Envelope(
        _address(given["sender"]) if given["sender"] else "", recipients, _one_of(given["body"], "7BIT", "8BITMIME"),
        bool(given["smtputf8"]), _one_of(given["ret"], "FULL", "HDRS", None), _word(given["envid"]),
        None if given["release"] is None else _seconds(given["release"]),
    )  # fmt: skip
    message = Message(
        given["id"], envelope,
        Origin(
            str(origin["listener"]), str(origin["client"]), str(origin["helo"]), _text(origin["user"]), _text(origin["tls"]), owner,
        ),
        len(text), _seconds(given["accepted"]), _texts(given["header_from"]),
        _text(given["message_id"]) or "", _text(given["subject"]) or "", _read_descent(given["report"]),
        (*_texts(given["changes"]), *receipts),
        None if given["priority"] is None else Priority[given["priority"].upper()],
    )  # fmt: skip
    waiting = [
        _delivery(message, n, each, now)
        for n, each in enumerate(given["recipients"])
        if each["state"] is not None and not State(each["state"]).final
    ]
    if not waiting:
        raise Unfit("none of its recipients is waiting for delivery")
    return Submission(message, text, tuple(waiting), tuple(_event(each) for each in given["events"]))


def _delivery(message: Message, n: int, given: Mapping[str, Any], now: float) -> Delivery:
    """Return a delivery that goes on where it stood; what was being sent is in doubt here as after a crash."""
    state = State(given["state"])
    made = Delivery(
        DeliveryId(message.id, n), message, message.envelope.recipients[n], NOT_PLACED, state, _count(given["attempts"]),
        _count(given["doubts"]), now, _text(given["pinned"]), bool(given["warned"]), _text(given["reason"]), _text(given["reply"]),
        _text(given["via"]),
    )  # fmt: skip
    if made.reason == SCHEDULED and message.envelope.release is not None:
        made = replace(made, due=max(now, message.envelope.release))
    if state is not State.IN_FLIGHT:
        return made
    doubts = made.doubts + 1
    if doubts >= DOUBTS_MAX:
        return replace(made, state=State.HELD, doubts=doubts, reason="in_doubt")
    return replace(made, state=State.QUEUED, doubts=doubts, reason="in_doubt", due=now + AMBIGUOUS_WAIT)


def _read_recipient(given: Mapping[str, Any]) -> Recipient:
    notify = None if given["notify"] is None else frozenset(given["notify"])
    if notify is not None and not notify <= {"NEVER", "SUCCESS", "FAILURE", "DELAY"}:
        raise ValueError(f"notify: {given['notify']}")
    return Recipient(_address(given["address"]), cast(Any, notify), _word(given["orcpt"]), _text(given["hold"]))


def _event(given: Mapping[str, Any]) -> Event:
    fields: dict[str, Any] = {name: _text(given[name]) for name in EVENT_FIELDS if name != "duration"}
    duration = None if given["duration"] is None else float(given["duration"])
    if duration is not None and not math.isfinite(duration):
        raise ValueError(f"{duration} is not a duration")
    event = _one_of(given["event"], *get_args(EventName))
    host = _text(given.get("host"))  # older exports have none
    return Event(_seconds(given["time"]), event, **fields, duration=duration, changes=_texts(given["changes"]), host=host)


def _address(given: str) -> str:
    """Return an address that may stand in an SMTP command. Raises: ValueError"""
    return check(given)


def _text(given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise TypeError(f"{given!r} is not text")
    return given


def _word(given: Any) -> str | None:
    """Return a text that may stand in an SMTP command. Raises: ValueError"""
    if given is not None and not str(given).isprintable():
        raise ValueError(f"{given!r} has characters that are not allowed in a command")
    return _text(given)


def _texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise TypeError(f"{given!r} is not a list of texts")
    return tuple(given)


def _count(given: Any) -> int:
    if not isinstance(given, int) or not 0 <= given < 2**32:
        raise ValueError(f"{given!r} is no count")
    return given


def _one_of(given: Any, *known: Any) -> Any:
    if given not in known:
        raise ValueError(f"{given!r} is none of {known}")
    return given


def _seconds(given: str) -> float:
    read = datetime.fromisoformat(given)
    if not _YEARS[0] <= read.year < _YEARS[1]:  # what rounding, or a zone, puts into the year 10000 could not be shown any more
        raise ValueError(f"{given} is not a valid time of a message")
    return read.timestamp()


def _in_full(seconds: float) -> str:
    """Return a time so that what comes back is what went out: the contract's documents stop at milliseconds."""
    return rfc3339(seconds, "microseconds")
