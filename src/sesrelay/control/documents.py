"""Values of the relay as JSON documents of the public contract: keys never absent, unknown is null.

Units: times RFC 3339 UTC, durations in seconds, sizes in octets.
"""

from __future__ import annotations

from collections.abc import Iterable

from sesrelay.mail.dates import rfc3339
from sesrelay.mail.delivery import State
from sesrelay.mail.trace import Event
from sesrelay.seams import DeliveryRecord, Document, MessageRecord, Pause, StandingHold, Stats

OPEN = (State.QUEUED, State.IN_FLIGHT, State.HELD)


def delivery(record: DeliveryRecord) -> Document:
    one = record.delivery
    return {
        "id": one.id.message,
        "state": one.state.value,
        "outcome": record.end,
        "sender": one.message.sender,
        "recipient": one.recipient.address,
        "route": one.placement.route,
        "transport": one.placement.lane.transport or None,
        "nexthop": one.placement.lane.nexthop or None,
        "priority": one.placement.priority.name.lower(),
        "size": one.message.size,
        "accepted": rfc3339(one.message.accepted),
        "attempts": one.attempts,
        "next_attempt": rfc3339(one.due) if one.state is State.QUEUED else None,
        "reason": one.reason,
        "reply": one.reply,
        "remote_id": record.remote_id,
    }


def message(record: MessageRecord) -> Document:
    one = record.message
    return {
        "id": one.id,
        "message_id": one.message_id or None,
        "sender": one.sender,
        "header_from": ", ".join(one.header_from) or None,
        "size": one.size,
        "accepted": rfc3339(one.accepted),
        "listener": one.origin.listener or None,
        "client": one.origin.client or None,
        "user": one.origin.who,
        "deliveries": [delivery(each) for each in record.deliveries],
    }


def traced(record: MessageRecord) -> Document:
    return {**message(record), "subject": record.message.subject or None, "events": [event(each) for each in record.events]}


def recent(record: MessageRecord) -> Document:
    return {**message(record), "subject": record.message.subject or None}


def event(one: Event) -> Document:
    return {
        "time": rfc3339(one.time),
        "event": one.event,
        "recipient": one.recipient,
        "transport": one.transport,
        "nexthop": one.nexthop,
        "outcome": one.outcome,
        "reply": one.reply,
        "remote_id": one.remote_id,
        "duration": one.duration,
        "tls": one.tls,
        "changes": list(one.changes),
        "host": one.host,
    }


def summary(stats: Stats, pauses: Iterable[Pause], parked: Iterable[StandingHold], undeliverable: Document, now: float) -> Document:
    by_state = {state.value: 0 for state in OPEN}
    by_transport: dict[str, dict[str, int]] = {}
    for (transport, state), count in sorted(stats.counts.items()):
        by_state[state.value] = by_state.get(state.value, 0) + count
        by_transport.setdefault(transport, {each.value: 0 for each in OPEN})[state.value] = count
    return {
        "messages": stats.messages,
        "deliveries": sum(stats.counts.values()),
        "bytes": stats.bytes,
        "oldest_seconds": None if stats.oldest is None else round(max(now - stats.oldest, 0.0), 3),
        "by_state": by_state,
        "by_transport": by_transport,
        "paused": [pause(each) for each in pauses],
        "future_holds": [standing_hold(each) for each in parked],
        "undeliverable": undeliverable,
    }


def standing_hold(one: StandingHold) -> Document:
    filter = one.filter
    return {"sender": filter.sender, "recipient": filter.recipient, "transport": filter.transport, "since": rfc3339(one.since)}


def pause(one: Pause) -> Document:
    return {
        "transport": one.transport,
        "nexthop": one.nexthop,
        "reason": one.reason.value,
        "since": rfc3339(one.since),
        "until": rfc3339(one.until),
        "domain": one.domain,
        "route": one.route,
        "cap": one.cap,
        "remedy": one.remedy,
    }
