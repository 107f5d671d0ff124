"""Where a delivery waits: routing and the state of the ways out, joined.

Source: ARCHITECTURE.md (the route is found anew at each attempt).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Delivery, LaneKey, Placement
from sesrelay.mail.envelope import Message, Recipient
from sesrelay.mail.reply import Reply
from sesrelay.policy import ladder, routing
from sesrelay.policy.admission import complete_recipient
from sesrelay.policy.routing import RouteRule

NOWHERE = LaneKey("", "")
"""The lane of mail that no configured transport takes any more; what stands there is held for the operator."""


def rule_for(message: Message, snapshot: Snapshot) -> RouteRule:
    """Return the rule for a message; our own reports go by their ladder, which begins with the domain they report to."""
    if message.report:
        return ladder.rule(message.report, message.header_from[0], snapshot.routing, snapshot.ladder)
    return snapshot.routing.route(message.sender, message.header_from)


def sender_domain_of(message: Message, snapshot: Snapshot) -> str:
    """Return the sender's domain as routing sees it: of the header From where the envelope's is null, or local."""
    return domain_of(snapshot.routing.routing_address(message.sender, message.header_from))


def fails_over_at(message: Message, lane: LaneKey, snapshot: Snapshot, pauses: Pauses, otherwise: float | None = None) -> float:
    """Return from when on what keeps `message` waiting in `lane` has lasted too long, and its route's next way out is tried.

    `otherwise`: since when it is kept where no pause stands for it. Infinite where nothing keeps it, or the route has no other way.
    """
    transport, since = snapshot.transports.get(lane.transport), pauses.since(lane, sender_domain_of(message, snapshot))
    since = otherwise if since is None else since
    if since is None or transport is None or len(rule_for(message, snapshot).transports) < 2:
        return math.inf
    return since + transport.failover_after


def place(
    message: Message,
    recipient: str,
    rule: RouteRule,
    snapshot: Snapshot,
    pauses: Pauses,
    now: float,
    pinned: str | None = None,
    via: str | None = None,
) -> Placement:
    """Return where mail from `message` to `recipient` waits now.

    `pinned`: the transport that may alone repeat it; `via`: the one that an operator chose, as long as there is one of that name.
    """
    names: Sequence[str] = (pinned,) if pinned else (via,) if via is not None and via in snapshot.transports else rule.transports
    usable = [name for name in names if name in snapshot.transports]
    priority = rule.priority if message.priority is None else message.priority
    if rule.reject or not usable:
        return Placement(rule.name, NOWHERE, priority, rule.name)
    name = usable[0] if len(usable) == 1 or not pauses else _first_open(usable, message, recipient, snapshot, pauses, now)
    lane = LaneKey(name, snapshot.transports[name].nexthop(recipient))
    return Placement(rule.name, lane, priority, rule.name)


def placement_now(delivery: Delivery, snapshot: Snapshot, pauses: Pauses, now: float) -> Placement:
    """Return where a delivery belongs under the configuration in force, whatever it was placed by."""
    rule = rule_for(delivery.message, snapshot)
    address = recipient_now(delivery.recipient, snapshot).address
    return place(delivery.message, address, rule, snapshot, pauses, now, delivery.pinned, delivery.via)


def recipient_now(recipient: Recipient, snapshot: Snapshot) -> Recipient:
    """Return whom mail is for under the configuration in force: what was held without an alias may have one."""
    if not recipient.hold:
        return recipient
    found = complete_recipient(replace(recipient, hold=None), snapshot.local)
    return recipient if isinstance(found, Reply) or found.hold else found


def shape(snapshot: Snapshot) -> int:
    """Return a whole number that stays the same for as long as the configuration places mail alike. Pauses are not in it."""
    ways = sorted((name, transport.nexthop("someone@example.com")) for name, transport in snapshot.transports.items())
    rungs = (sorted(snapshot.ladder.ses), snapshot.ladder.direct, snapshot.ladder.own)
    told = repr((snapshot.routing.shape(), ways, rungs)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1  # as large as a store's integer


def _first_open(names: Sequence[str], message: Message, recipient: str, snapshot: Snapshot, pauses: Pauses, now: float) -> str:
    """Return the first way out that is open. A pause that has run out counts as open: somebody has to probe it."""
    sender_domain = sender_domain_of(message, snapshot)
    transports = {name: snapshot.transports[name] for name in names}
    lanes = {name: LaneKey(name, transport.nexthop(recipient)) for name, transport in transports.items()}
    paused = [
        name
        for name, lane in lanes.items()
        if pauses.blocked_until(lane, now) is not None or pauses.sender_wait(name, sender_domain, now) is not None
    ]
    paused_for = {name: now - (pauses.since(lanes[name], sender_domain) or now) for name in paused}
    return routing.choose(names, paused_for, {name: transport.failover_after for name, transport in transports.items()})
