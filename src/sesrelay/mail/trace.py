"""The events of a message's life, as `trace` shows them."""

from __future__ import annotations

from typing import Literal, NamedTuple

EventName = Literal["accepted", "routed", "attempt", "held", "released", "delivered", "failed", "bounced", "feedback"]


class Event(NamedTuple):
    """One line of a trace. Units: `time` Unix seconds, `duration` seconds.

    `outcome` of an attempt is delivered, deferred, failed, ambiguous or held; of the end of a delivery, as the
    metric `deliveries_total` names it. `host` is the one that answered, of the several that a nexthop may have.
    """

    time: float
    event: EventName
    recipient: str | None = None
    transport: str | None = None
    nexthop: str | None = None
    outcome: str | None = None
    reply: str | None = None
    remote_id: str | None = None
    duration: float | None = None
    tls: str | None = None
    changes: tuple[str, ...] = ()
    host: str | None = None
