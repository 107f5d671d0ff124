"""One message for one recipient: the unit of state, and what groups it on its way out."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeVar

from sesrelay.mail.envelope import Message, Recipient
from sesrelay.mail.priority import Priority as Priority  # noqa: PLC0414  # a word of deliveries as well
from sesrelay.mail.value import value

T = TypeVar("T")


class State(StrEnum):
    QUEUED = "queued"
    IN_FLIGHT = "in_flight"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (State.DELIVERED, State.FAILED)


class DeliveryId(NamedTuple):
    """Queue id of the message, and the recipient's place in its envelope, from 0."""

    message: str
    n: int


class LaneKey(NamedTuple):
    """What concurrency and pausing are keyed by: the transport, and the nexthop it names for a delivery."""

    transport: str
    nexthop: str


class Stream(NamedTuple):
    """What a lane tells apart when it chooses who goes next: a priority, and a site within it."""

    priority: Priority
    site: str


@value(frozen=True, slots=True)
class Placement:
    """Where a delivery waits: decided by routing, found anew at each attempt.

    `route` is the route's name as metrics show it; `site` is what fairness is keyed by.
    """

    route: str
    lane: LaneKey
    priority: Priority = Priority.NORMAL
    site: str = ""

    @property
    def stream(self) -> Stream:
        return Stream(self.priority, self.site)


@value(frozen=True, slots=True)
class Delivery:
    """Units: `due` Unix seconds; `attempts` counts those that were spent, `doubts` those that ended ambiguous.

    `pinned`: the transport that an ambiguous attempt went by; it is repeated there and nowhere else.
    `via`: the transport that an operator chose for it instead of its route's.
    `reason`: why it is held, or what its last obstacle was; `reply`: the last answer, as text.
    """

    id: DeliveryId
    message: Message
    recipient: Recipient
    placement: Placement
    state: State = State.QUEUED
    attempts: int = 0
    doubts: int = 0
    due: float = 0.0
    pinned: str | None = None
    warned: bool = False
    reason: str | None = None
    reply: str | None = None
    via: str | None = None

    def sending(self, lane: LaneKey, due: float) -> Delivery:
        """Return it as it stands while an attempt by `lane` is open; `due` is when that counts as lost."""
        # Spelt out: dataclasses.replace costs ten times as much, and each message passes here.
        place = self.placement
        if place.lane != lane:
            place = Placement(place.route, lane, place.priority, place.site)
        return Delivery(
            self.id, self.message, self.recipient, place, State.IN_FLIGHT, self.attempts + 1, self.doubts, due, self.pinned,
            self.warned, self.reason, self.reply, self.via,
        )  # fmt: skip


@value(frozen=True, slots=True)
class Batch:
    """Deliveries of one message to one nexthop; at least one, at most the transport's `batch_limit`."""

    lane: LaneKey
    deliveries: tuple[Delivery, ...]

    @property
    def message(self) -> Message:
        return self.deliveries[0].message

    @property
    def priority(self) -> Priority:
        return self.deliveries[0].placement.priority

    def for_all(self, what: T) -> dict[DeliveryId, T]:
        """Return it for each delivery: what holds for all of them alike."""
        return {delivery.id: what for delivery in self.deliveries}

    def __len__(self) -> int:
        return len(self.deliveries)
