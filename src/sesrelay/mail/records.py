"""What is stored, as operators ask for it and see it: filters, and records of deliveries, messages and totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sesrelay.mail.delivery import Delivery, State
from sesrelay.mail.envelope import Message
from sesrelay.mail.trace import Event


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries an operator means; a field of None does not restrict, and an empty Filter means none at all.

    `sender` and `recipient` match a whole address or, as `*@example.com` or `@example.com`, all of a domain, case
    aside. `states` empty: those that have not ended. Units: `older_than` seconds since acceptance.
    """

    ids: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    transport: str | None = None
    older_than: float | None = None


@dataclass(frozen=True, slots=True)
class StandingHold:
    """What is held as it comes: `filter` names sender, recipient or transport only. Units: `since` Unix seconds."""

    filter: Filter
    since: float


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivery as stored, for people: the delivery itself, its end and the remote id. `end`: see Verdict.end."""

    delivery: Delivery
    end: str | None = None
    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message with all its deliveries and events, those in order of time."""

    message: Message
    deliveries: tuple[DeliveryRecord, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is at rest. `counts`: open deliveries by (transport, state). Units: `bytes` octets of content.

    `oldest`, and `oldest_by_transport`: since when the oldest open delivery waits, in Unix seconds. It waits from its acceptance
    on, or from the hour for which its sender has scheduled it, which may be still to come.
    """

    messages: int = 0
    bytes: int = 0
    oldest: float | None = None
    counts: Mapping[tuple[str, State], int] = field(default_factory=dict)
    oldest_by_transport: Mapping[str, float] = field(default_factory=dict)
