"""What the pages show, made from the documents of the public contract: words, ages and sizes for people.

Invariant: pure; all text stays text here, and the templates escape it.
Invariant: what a stranger wrote has no control or direction-changing character left in it, and an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sesrelay.seams import Document

TEXT_MAX = 300
REMEDY_MAX = 1000
SLIVER = 1.0  # hundredths; what is there at all can be seen
STATES = ("queued", "in_flight", "held")
# What a message of several recipients is shown as: what wants the eye most comes first.
_GRAVITY = ("failed", "held", "deferred", "in_flight", "queued", "delivered")
_NAMES = {"in_flight": "in flight"}
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]")
# Obstacles that come and go by themselves are told after those that wait for somebody.
_PASSING = frozenset({"unavailable", "throttled"})
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def plain(value: object, limit: int = TEXT_MAX) -> str:
    """Return `value` as one line of text that can be shown; what cannot be seen becomes U+FFFD."""
    text = _UNSEEN.sub("\ufffd", "" if value is None else str(value))
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def age(seconds: float) -> str:
    """Return a duration in its largest unit, rounded down."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "now"


def uptime(seconds: float) -> str:
    """Return a duration in its two largest units."""
    first = next((index for index, (unit, _) in enumerate(_UNITS) if seconds >= unit), len(_UNITS) - 1)
    rest = seconds % _UNITS[first][0]
    second = age(rest) if first + 1 < len(_UNITS) and rest >= _UNITS[first + 1][0] else ""
    return f"{age(seconds)} {second}".strip()


def spans(text: str) -> list[tuple[bool, str]]:
    """Return the parts of a remedy; True marks what stood between backticks: something to type."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [(False, text)]
    return [(bool(index % 2), part) for index, part in enumerate(parts) if part]


def size(octets: float) -> str:
    """Return a size in the largest binary unit that leaves a number."""
    if octets < 1024:
        return f"{octets:.0f} B"
    value, units = octets / 1024, ["KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.0f} {units[0]}" if value >= 10 else f"{value:.1f} {units[0]}"


def number(value: float) -> str:
    return f"{int(value):,}".replace(",", "\u202f")


def state_of(delivery: Mapping[str, Any]) -> str:
    """Return the word for a delivery's state: deferred is queued with attempts behind it."""
    state = str(delivery.get("state") or "queued")
    return "deferred" if state == "queued" and (delivery.get("attempts") or 0) > 0 else state


def state_name(state: str) -> str:
    return _NAMES.get(state, state)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for people: `clock` is HH:MM:SS of the day, `day` the date where it is not today's."""

    iso: str
    clock: str
    day: str
    age: str


def moment(iso: object, now: float) -> Moment | None:
    """Return the Moment of an RFC 3339 time, or None where there is none."""
    if not isinstance(iso, str):
        return None
    try:
        when = datetime.fromisoformat(iso).astimezone(UTC)
    except ValueError:
        return None
    today = datetime.fromtimestamp(now, UTC).date()
    day = "" if when.date() == today else when.date().isoformat()
    return Moment(iso, when.strftime("%H:%M:%S"), day, age(now - when.timestamp()))


@dataclass(frozen=True, slots=True)
class Lane:
    """One transport's share of the queue; `segments` are (state, x, width) in hundredths of the fullest one."""

    name: str
    counts: Mapping[str, int]
    segments: Sequence[tuple[str, float, float]]
    paused: bool


def lanes(summary: Document) -> list[Lane]:
    """Return the transports with what waits in each, by name."""
    by_transport: Mapping[str, Mapping[str, int]] = summary.get("by_transport") or {}
    paused = {pause.get("transport") for pause in summary.get("paused") or ()}
    fullest = max((sum(counts.get(state, 0) for state in STATES) for counts in by_transport.values()), default=0)
    made = []
    for name in sorted({*by_transport, *(str(name) for name in paused if name)}):
        counts = {state: int(by_transport.get(name, {}).get(state, 0)) for state in STATES}
        at, segments = 0.0, []
        for state in STATES:
            width = max(100.0 * counts[state] / fullest, SLIVER) if counts[state] else 0.0
            at = min(at, 100.0 - width)
            segments.append((state, round(at, 2), round(width, 2)))
            at += width
        made.append(Lane(plain(name, 80) or "(none yet)", counts, segments, name in paused))
    return made


@dataclass(frozen=True, slots=True)
class Row:
    """One message of the table. `detail` is the reply, the remote id or the reason that says most."""

    id: str
    accepted: Moment | None
    sender: str
    recipients: Sequence[str]
    more: int
    subject: str
    state: str
    tally: str
    route: str
    transport: str
    remote_id: str
    detail: str


def row(document: Document, now: float) -> Row:
    """Return the table's row for a message, led by the delivery that wants the eye most."""
    deliveries: Sequence[Mapping[str, Any]] = document.get("deliveries") or ()
    states = [state_of(delivery) for delivery in deliveries]
    ranked = sorted(zip(states, deliveries, strict=True), key=lambda pair: _rank(pair[0]))
    state, leading = ranked[0] if ranked else ("queued", {})
    tally = ", ".join(f"{states.count(s)} {state_name(s)}" for s in _GRAVITY if s in states) if len(set(states)) > 1 else ""
    reason = "" if state == "delivered" else leading.get("reason")
    detail = " · ".join(part for part in (plain(reason), answer(leading)) if part)
    return Row(
        id=str(document.get("id") or ""),
        accepted=moment(document.get("accepted"), now),
        sender=plain(document.get("sender"), 120) or "<>",
        recipients=[plain(delivery.get("recipient"), 120) for delivery in deliveries[:2]],
        more=max(len(deliveries) - 2, 0),
        subject=plain(document.get("subject")),
        state=state,
        tally=tally,
        route=plain(leading.get("route"), 80),
        transport=plain(leading.get("transport"), 80),
        remote_id=plain(leading.get("remote_id"), 120),
        detail=detail,
    )


def answer(delivery: Mapping[str, Any]) -> str:
    """Return the reply of a delivery without the remote id, which is shown beside it."""
    reply, remote_id = plain(delivery.get("reply")), plain(delivery.get("remote_id"))
    return reply.replace(remote_id, "").strip() if remote_id else reply


def _rank(state: str) -> int:
    return _GRAVITY.index(state) if state in _GRAVITY else len(_GRAVITY)


@dataclass(frozen=True, slots=True)
class Figure:
    """One counter of the page. `tone` names its colour; a figure of 0 stays quiet."""

    label: str
    value: str
    note: str
    tone: str


def figures(summary: Document, counters: Mapping[str, int]) -> list[Figure]:
    """Return the six counters: four since the start, two of now."""
    by_state: Mapping[str, int] = summary.get("by_state") or {}
    waiting = by_state.get("queued", 0) + by_state.get("in_flight", 0)
    oldest = summary.get("oldest_seconds")
    queue_note = size(summary.get("bytes") or 0) + (f", oldest {age(oldest)}" if oldest is not None and waiting else "")
    since = "since start"
    return [
        _figure("Accepted", counters.get("accepted", 0), since, "plain"),
        _figure("Delivered", counters.get("delivered", 0), since, "delivered"),
        _figure("Deferrals", counters.get("deferred", 0), since, "deferred"),
        _figure("Failed", counters.get("failed", 0), since, "failed"),
        _figure("In queue", waiting, queue_note if waiting else "nothing waits", "in_flight"),
        _figure("Held", by_state.get("held", 0), "for you to decide" if by_state.get("held") else "nothing to decide", "held"),
    ]


def _figure(label: str, value: int, note: str, tone: str) -> Figure:
    return Figure(label, number(value), note, tone if value else "quiet")


def pauses(summary: Document, now: float) -> list[dict[str, Any]]:
    """Return the pauses with their texts made plain: what somebody has to mend first, then by age."""
    made = []
    for pause in sorted(summary.get("paused") or (), key=lambda pause: (pause.get("reason") in _PASSING, str(pause.get("since")))):
        texts = {key: plain(pause.get(key)) for key in ("transport", "nexthop", "domain", "route")}
        texts["reason"] = plain(pause.get("cap") or pause.get("reason"))
        made.append({**texts, "remedy": spans(plain(pause.get("remedy"), REMEDY_MAX)), "since": moment(pause.get("since"), now)})
    return made


def events(document: Document, now: float) -> Iterable[dict[str, Any]]:
    """Return the events of a trace with their texts made plain."""
    for event in document.get("events") or ():
        keys = ("event", "recipient", "transport", "nexthop", "outcome", "reply", "remote_id", "tls")
        duration = event.get("duration")
        yield {
            **{key: plain(event.get(key)) for key in keys},
            "time": moment(event.get("time"), now),
            "duration": "" if duration is None else f"{duration:.3f} s",
            "changes": [plain(change) for change in event.get("changes") or ()],
        }
