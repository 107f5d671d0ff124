"""Taking messages that another queue exported: under their own id, placed by this relay's routing.

Invariant: a message that is here already is left as it is, so an import may be repeated, and cut short anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sesrelay.delivery import placing
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.delivery import Delivery, LaneKey
from sesrelay.mail.envelope import Message
from sesrelay.mail.trace import Event
from sesrelay.seams import Clock, Spool, SpoolAdmin, Submission, Unfit


def no_engine(lane: LaneKey) -> None:
    """Do nothing: the next daemon finds it."""


@dataclass(frozen=True, slots=True)
class Importer:
    """`stored` wakes the lane that has something new. `spool` and `admin` are two sides of one store."""

    spool: Spool
    admin: SpoolAdmin
    snapshot: Callable[[], Snapshot]
    pauses: Pauses
    clock: Clock
    stored: Callable[[LaneKey], None] = no_engine

    async def take(self, given: Submission) -> bool:
        """Store a message; False: it is here already. Durable on return. Raises: Unfit, SpoolError"""
        known = await self.admin.show(given.message.id)
        if known is not None:
            if not _same(known.message, given.message):
                raise Unfit(f"the queue id {given.message.id} already belongs to another message in this queue")
            return False
        snapshot, now = self.snapshot(), self.clock.wall()
        rule = placing.rule_for(given.message, snapshot)
        deliveries = tuple(self._placed(each, snapshot, now) for each in given.deliveries)
        told = Event(
            now, "routed", transport=", ".join(rule.transports), reply=f"imported; {rule.name}: {rule.pattern} ({rule.source})"
        )
        await self.spool.accept(replace(given, deliveries=deliveries, events=(*given.events, told)))
        for lane in dict.fromkeys(each.placement.lane for each in deliveries):
            self.stored(lane)
        return True

    def _placed(self, delivery: Delivery, snapshot: Snapshot, now: float) -> Delivery:
        # A way out that was pinned or chosen on another host is not waited for here.
        pinned, via = (name if name in snapshot.transports else None for name in (delivery.pinned, delivery.via))
        delivery = replace(delivery, pinned=pinned, via=via)
        return replace(delivery, placement=placing.placement_now(delivery, snapshot, self.pauses, now))


def _same(here: Message, given: Message) -> bool:
    return (here.sender, here.message_id, int(here.accepted)) == (given.sender, given.message_id, int(given.accepted))
