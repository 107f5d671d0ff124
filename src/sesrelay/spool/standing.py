"""What operators want held as it comes: wishes that outlive a restart, kept in the store and in force from memory.

Invariant: a wish is durable before it is in force, and the same wish stands once, however it was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sesrelay.mail.address import AddressError, domain_key
from sesrelay.mail.delivery import Delivery, State
from sesrelay.mail.trace import Event
from sesrelay.seams import Filter, StandingHold, Submission
from sesrelay.spool import wishes
from sesrelay.spool.matching import Match, key

INSERT = "INSERT INTO standing_hold (filter, since) VALUES (?, ?) ON CONFLICT DO NOTHING"
DELETE = "DELETE FROM standing_hold WHERE filter = ?"
SELECT = "SELECT filter, since FROM standing_hold ORDER BY since, filter"


class StandingHolds:
    """Those in force, the oldest first."""

    def __init__(self) -> None:
        self._matches: dict[str, tuple[StandingHold, Match]] = {}

    def all(self) -> list[StandingHold]:
        return [hold for hold, _ in self._matches.values()]

    def has(self, filter: Filter) -> bool:
        return as_text(filter) in self._matches

    def add(self, filter: Filter, since: float) -> None:
        self._matches.setdefault(as_text(filter), (StandingHold(normal(filter), since), Match(filter, since)))

    def remove(self, filter: Filter) -> None:
        self._matches.pop(as_text(filter), None)

    def load(self, rows: Iterable[tuple[str, float]]) -> None:
        """Take over what the store has."""
        for text, since in rows:
            self.add(Filter(**json.loads(text)), since)

    def hold(self, delivery: Delivery) -> str | None:
        """Return the reason why a delivery that comes now is held, or None."""
        if not self._matches:
            return None
        transport, accepted = delivery.placement.lane.transport, delivery.message.accepted
        sender, recipient = key(delivery.message.sender), key(delivery.recipient.address)
        for _, match in self._matches.values():
            if match(State.QUEUED, transport, sender, recipient, accepted):
                return wishes.HELD_BY_OPERATOR
        return None

    def applied(self, report: Submission) -> Submission:
        """Return a report with its deliveries held that would have been, had it come from outside."""
        held = [each for each in report.deliveries if each.state is State.QUEUED and self.hold(each)]
        if not held:
            return report
        reason = wishes.HELD_BY_OPERATOR
        deliveries = tuple(replace(each, state=State.HELD, reason=reason) if each in held else each for each in report.deliveries)
        told = tuple(Event(each.due, "held", each.recipient.address, *each.placement.lane, reason) for each in held)
        return replace(report, deliveries=deliveries, events=(*report.events, *told))


class Parking:
    """What both stores do alike to keep the promises of `park`, `unpark`, `parked` and `standing_hold`."""

    standing: StandingHolds

    async def keep(self, statement: str, bindings: tuple[object, ...]) -> None:
        """Make a change to the stored wishes durable. Raises: SpoolError"""
        raise NotImplementedError

    async def park(self, filter: Filter, now: float) -> None:
        await self.keep(INSERT, (as_text(filter), now))
        self.standing.add(filter, now)

    async def unpark(self, filter: Filter) -> bool:
        if not self.standing.has(filter):
            return False
        await self.keep(DELETE, (as_text(filter),))
        self.standing.remove(filter)
        return True

    def parked(self) -> Sequence[StandingHold]:
        return self.standing.all()

    def standing_hold(self, delivery: Delivery) -> str | None:
        return self.standing.hold(delivery)


def normal(filter: Filter) -> Filter:
    """Return the wish in the one form that it is kept in."""
    return Filter(sender=_pattern(filter.sender), recipient=_pattern(filter.recipient), transport=filter.transport)


def as_text(filter: Filter) -> str:
    one = normal(filter)
    return json.dumps({"sender": one.sender, "recipient": one.recipient, "transport": one.transport})


def _pattern(text: str | None) -> str | None:
    if text is None:
        return None
    if not text.startswith(("@", "*@")):
        return text if text == "<>" else key(text) or "<>"
    domain = text.partition("@")[2]
    try:
        return f"*@{domain_key(domain)}"
    except AddressError:
        return f"*@{domain.lower()}"
