"""What the spool in memory keeps of a message, and what it hands out of all that waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from sesrelay.mail.delivery import Delivery, LaneKey, Priority, State, Stream
from sesrelay.mail.envelope import Message
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.trace import Event
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.seams import Claim, DeliveryRecord, Verb
from sesrelay.spool import wishes
from sesrelay.spool.matching import OPEN


@dataclass(slots=True)
class Stored:
    delivery: Delivery
    end: str | None = None
    remote_id: str | None = None
    wish: wishes.Wish | None = None

    @property
    def open(self) -> bool:
        return self.delivery.state in OPEN


@dataclass(slots=True)
class Entry:
    message: Message
    content: Canonical | None
    deliveries: dict[int, Stored]
    events: list[Event] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return any(each.open for each in self.deliveries.values())


def hand_out(
    waiting: Iterable[Delivery], lane: LaneKey, limit: int, now: float, passed_over: Collection[Stream], after: str
) -> Claim:
    """See `Spool.claim`."""
    found: list[Delivery] = []
    due: dict[Stream, float] = {}
    runs: dict[Stream, deque[Delivery]] = {}
    for each in sorted(waiting, key=lambda one: (one.due, one.id)):
        if each.placement.lane == lane and each.placement.stream not in passed_over:
            runs.setdefault(each.placement.stream, deque()).append(each)
    for priority in Priority:
        sites = (stream for stream in runs if stream.priority == priority)
        turns = deque(sorted(sites, key=lambda one: (one.site <= after, one)))
        while turns:
            stream = turns.popleft()
            run = runs[stream]
            if run and run[0].due <= now and len(found) < limit:
                found.append(run.popleft())
                turns.append(stream)
            elif run:
                due[stream] = run[0].due
    return Claim(tuple(found), due)


def record_of(stored: Stored) -> DeliveryRecord:
    return DeliveryRecord(stored.delivery, stored.end, stored.remote_id)


def waits_for_its_hour(delivery: Delivery, now: float) -> bool:
    """Tell whether it has not been tried because its sender wants it sent later."""
    return delivery.state is State.QUEUED and delivery.reason == SCHEDULED and delivery.due > now


def stays(delivery: Delivery) -> bool:
    """Tell whether it stays where it may be already, though an operator chooses another way.

    Who so releases what waited for a decision says that it was not sent; what an operator has merely held is in doubt as before.
    """
    decided = delivery.state is State.HELD and delivery.reason != wishes.HELD_BY_OPERATOR
    return delivery.pinned is not None and not decided


def changed_by(delivery: Delivery, verb: Verb, state: State, now: float) -> Delivery:
    due = max(now, delivery.message.envelope.release or 0.0)
    if verb == "hold":
        return replace(delivery, state=state, due=now, reason=wishes.HELD_BY_OPERATOR)
    if verb == "release":
        return replace(delivery, state=state, due=due, reason=SCHEDULED if due > now else None, doubts=0)
    if verb == "delete":
        return replace(delivery, state=state, due=now, reason=wishes.DELETED)
    return replace(delivery, due=now)
