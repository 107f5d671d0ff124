"""What goes between the lanes in memory and the store: claims, what is given back, and what waits there for later.

Invariant: each stream of a lane is asked for by itself, so that a lane full of one priority or one site hides nothing of
the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sesrelay.delivery import placing
from sesrelay.delivery.counts import Counts
from sesrelay.delivery.gates import Gates
from sesrelay.delivery.lane import ROOM, Lane, Ready, home_of
from sesrelay.delivery.lanes import Lanes
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.delivery.tasks import Tasks
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, LaneKey, Placement, Stream
from sesrelay.mail.outcome import PauseReason, Scope
from sesrelay.policy.batching import batches
from sesrelay.seams import Clock, Observer, Spool, SpoolError, Transport

SLICE = 500  # deliveries placed anew in one transaction
LEISURE = 0.5  # seconds between two slices at most
AT_LEISURE = 9  # pauses as many times as long as the slices: what comes and goes meanwhile keeps nine tenths of its speed
SENDER_DOMAIN = Scope.SENDER_DOMAIN.value
WAITS_FOR_OTHERS = frozenset({*(reason.value for reason in PauseReason), SENDER_DOMAIN})
"""Reasons of mail that waits for something that another way out does not have, or a changed configuration may have mended."""
ELSEWHERE = 5.0  # seconds at most before what found no room in another lane than its own is claimed anew
AGAIN = 2.0  # seconds before a store that did not let mail be moved is asked again

Groups = Mapping[tuple[LaneKey, Stream], list[Delivery]]
Hasten = Callable[[Delivery], bool]


def waits_for_others(one: Delivery) -> bool:
    return one.reason in WAITS_FOR_OTHERS


@dataclass(slots=True)
class Supply:
    """`pump` starts what a lane may send; `stall` is told of trouble with the store. `moves`: how often an operator has chosen
    another way out for mail; what was claimed before may not know of it. `ended`: nothing more is to be begun.
    """

    spool: Spool
    clock: Clock
    observer: Observer
    pauses: Pauses
    gates: Gates
    counts: Counts
    tasks: Tasks
    snapshot: Callable[[], Snapshot]
    transport: Callable[[str], Transport]
    pump: Callable[[Lane], None]
    stall: Callable[[bool], None]
    lanes: Lanes = field(init=False)
    _crowded: list[Ready] = field(default_factory=list, init=False)
    moves: int = field(default=0, init=False)
    ended: bool = field(default=False, init=False)
    _hastening: bool = field(default=False, init=False)

    def by_place(self, deliveries: Iterable[Delivery], now: float) -> Groups:
        """Group deliveries by the lane and the stream where routing wants them now."""
        groups: dict[tuple[LaneKey, Stream], list[Delivery]] = {}
        snapshot = self.snapshot()
        for one in deliveries:
            place = placing.placement_now(one, snapshot, self.pauses, now)
            aliased = replace(one, recipient=placing.recipient_now(one.recipient, snapshot)) if one.recipient.hold else one
            groups.setdefault((place.lane, place.stream), []).append(aliased)
        return groups

    def put_anew(self, ready: Ready, now: float) -> list[Lane]:
        """Let what was taken out of a lane wait where routing wants it now; return those lanes."""
        lanes: dict[LaneKey, Lane] = {}
        for (key, stream), deliveries in self.by_place(ready.batch.deliveries, now).items():
            for batch in batches(key, deliveries, self.transport(key.transport).batch_limit):
                lanes[key] = self.lanes.put(Ready(batch, stream, ready.content))
        return list(lanes.values())

    def refill(self, lane: Lane, now: float) -> None:
        """Ask the store for what is due and of which too little waits in memory, if there is such."""
        wanted = lane.wanted(now)
        if not wanted or lane.claiming:
            return
        if None in wanted:
            passed_over = lane.well_stocked()
            for stream in passed_over:  # what is not known may be of it: it is asked for once little of it is left
                lane.note(stream, now)
        else:
            passed_over = {*lane.streams(), *lane.wakes} - wanted.keys()
        for site, found, _ in self.gates.shut(now) if self.gates else ():
            known = [stream for stream in lane.wakes if stream is not None and stream.site == site]
            for stream in known:  # what is not known is claimed once, given back, and known then: most lanes have nothing of it
                passed_over.add(stream)
                lane.put_off(stream, found.until)
            if known:
                self.gates.wait_for(site, lane.key)
        lane.claiming = True
        self.tasks.spawn(self._claim(lane, min(sum(wanted.values()), ROOM), passed_over))

    def put_off_shut(self, lane: Lane, now: float) -> None:
        """Leave in the store, and give back to it, what a cap keeps from going."""
        for stream in {*lane.streams(), *lane.wakes}:
            until = self.gates.shut_until(stream.site, now) if stream is not None else None
            if stream is not None and until is not None:
                if readies := self.lanes.empty(lane, stream):
                    self.tasks.spawn(self._give_back(readies, to_stay=True))
                lane.rest([stream], until)
                self.gates.wait_for(stream.site, lane.key)

    def call_guests(self, lane: Lane, now: float) -> None:
        """Have what was turned away from `lane` claimed anew."""
        guests, lane.guests = lane.guests, {}
        for key, streams in guests.items():
            home = self.lanes.get(key)
            for stream in streams:
                home.note(stream, now)
            home.moved_at = -math.inf
            self.pump(home)

    async def _claim(self, lane: Lane, limit: int, passed_over: set[Stream | None]) -> None:
        """Claim what is due in the store, and put each batch where routing wants it now."""
        now, forgotten, moves = self.clock.wall(), lane.asking(passed_over), self.moves
        streams = frozenset(stream for stream in passed_over if stream is not None)
        try:
            claim = await self.spool.claim(lane.key, limit, now, passed_over=streams, after=lane.turn)
        except SpoolError as error:
            for known, due in forgotten.items():
                lane.note(known, due)
            self.observer.trouble("the queue cannot be read; sending has stopped until it can be read", error)
            self.stall(True)
            return
        finally:
            lane.claiming = False
        for stream, due in claim.due.items():
            lane.note(stream, due)
        if claim.deliveries:
            lane.turn = claim.deliveries[-1].placement.site
        if moves != self.moves:
            await self._give_back([Ready(Batch(lane.key, (one,)), one.placement.stream) for one in claim.deliveries])
            await self.follow_choice()
            return
        touched = {lane.key: lane}
        for (key, stream), deliveries in self.by_place(claim.deliveries, now).items():
            for batch in batches(key, deliveries, self.transport(key.transport).batch_limit):
                touched[key] = self.lanes.put(Ready(batch, stream))
            if key != lane.key and not self.lanes.has_room(key, stream):
                # What there is more of it would be given back as soon as it is claimed.
                turned_away = {one.placement.stream for one in deliveries}
                lane.rest(turned_away, now + ELSEWHERE)
                self.lanes.get(key).turn_away(lane.key, turned_away)
        for one in touched.values():
            self.pump(one)

    # --- giving back ---

    def crowded_out(self, ready: Ready) -> None:
        """Give back what had to make way in its lane, all that comes at once together."""
        self._crowded.append(ready)
        if len(self._crowded) == 1:
            self.tasks.spawn(self._give_back_crowded())

    async def _give_back_crowded(self) -> None:
        crowded, self._crowded = self._crowded, []
        await self._give_back(crowded)

    async def _give_back(self, readies: list[Ready], *, to_stay: bool = False) -> None:
        """Return claimed batches to the store. `to_stay`: to the places where they belong now.

        Otherwise the store would hand them out again at once for a site by which another configuration placed them.
        """
        try:
            await self.spool.unclaim([delivery.id for ready in readies for delivery in ready.batch.deliveries])
        except SpoolError as error:
            self.observer.trouble("claimed mail cannot be returned to the queue", error)
            self.lanes.keep(readies)
            self.stall(True)
            return
        moved = to_stay and await self._moved_home(readies)
        now = self.clock.wall()
        homes: dict[LaneKey, Lane] = {}
        for ready in readies:
            for delivery in ready.batch.deliveries:
                key, stream = (ready.batch.lane, ready.stream) if moved else home_of(delivery)
                homes[key] = self.lanes.get(key)
                if key == ready.batch.lane:
                    homes[key].note(stream, now)  # it claims it when it has room
                else:
                    homes[key].note(stream, now + ELSEWHERE)
                    self.lanes.get(ready.batch.lane).turn_away(key, {stream})
        for lane in homes.values():
            self.pump(lane)

    async def _moved_home(self, readies: Iterable[Ready]) -> bool:
        """Have what was given back stand in the store where it waited; tell whether it does."""
        away = [one.id for ready in readies for one in ready.batch.deliveries if home_of(one) != (ready.batch.lane, ready.stream)]
        reached: DeliveryId | None = None
        try:
            for one in sorted(away):
                if reached is None or one > reached:
                    reached = await self._place(DeliveryId(one.message, one.n - 1), chosen=False, limit=len(away), hasten=None)
                    if reached is None:
                        break
        except SpoolError as error:
            self.observer.trouble("waiting mail cannot be moved to its new place in the queue", error)
            self.stall(True)
            return False
        return True

    def sender_waits(self, batch: Batch, now: float) -> float | None:
        """Return until when a batch waits for its sender's domain, None where it need not: for the pause, or, where that lasts
        too long, until its route's next way out may have it, which may be now.
        """
        snapshot = self.snapshot()
        sender_domain = placing.sender_domain_of(batch.message, snapshot)
        until = self.pauses.sender_wait(batch.lane.transport, sender_domain, now)
        if until is None:
            return None
        moves = placing.fails_over_at(batch.message, batch.lane, snapshot, self.pauses)
        if moves > now:
            return min(until, moves)
        return now if any(key != batch.lane for key, _ in self.by_place(batch.deliveries, now)) else until

    def put_off(self, ready: Ready, until: float, now: float) -> None:
        """Let a batch whose sender's domain is paused wait in the store; where `until` is past, it goes another way."""
        if until > now:
            self.tasks.spawn(self._postpone(ready, until))
            return
        for lane in self.put_anew(ready, now):
            self.pump(lane)

    async def _postpone(self, ready: Ready, until: float) -> None:
        deliveries = ready.batch.deliveries
        try:
            await self.spool.postpone([delivery.id for delivery in deliveries], until, SENDER_DOMAIN)
        except SpoolError as error:
            self.observer.trouble("a message cannot be postponed", error, queue_id=ready.batch.message.id)
            self.lanes.keep([Ready(ready.batch, ready.stream)])
            self.stall(True)
            return
        for delivery in deliveries:
            key, stream = home_of(delivery)
            home = self.lanes.get(key)
            home.note(stream, until)
            self.lanes.arm(home, until - self.clock.wall())

    async def shelve(self, lanes: Iterable[Lane]) -> list[DeliveryId]:
        """Give all that waits in memory in `lanes` back to the store, due now; return what that was.

        Raises: SpoolError, and then it waits where it waited.
        """
        now, readies = self.clock.wall(), list[Ready]()
        for lane in lanes:
            shelved = self.lanes.empty(lane)
            if shelved:
                lane.note(None, now)
            readies += shelved
        ids = [delivery.id for ready in readies for delivery in ready.batch.deliveries]
        try:
            if ids:
                await self.spool.unclaim(ids)
        except SpoolError:
            # Still claimed: nobody else would ever hand it out again.
            self.lanes.keep(readies)
            self.stall(True)
            raise
        return ids

    async def place_anew(self, *, at_leisure: bool = False) -> None:
        """Go through all that is queued, in slices, and put each delivery where it belongs now. Raises: SpoolError

        `at_leisure`: with long pauses between the slices, since there is other work.
        """
        snapshot = self.snapshot()
        await self._place_stretch(None, None, at_leisure)
        if at_leisure:
            # What stood in lanes meanwhile is claimed, and was passed over.
            ids = sorted(await self.shelve(self.lanes.values()))
            if ids:
                await self._place_stretch(DeliveryId(ids[0].message, ids[0].n - 1), ids[-1], at_leisure)
        if snapshot is self.snapshot() and not self.ended:
            await self.counts.note_placed(placing.shape(snapshot))

    async def _place_stretch(self, after: DeliveryId | None, last: DeliveryId | None, at_leisure: bool) -> None:
        """Place anew what lies behind `after`, up to `last` or to the end, or until nothing more is to be begun."""
        while not self.ended:
            began = self.clock.monotonic()
            after = await self._place(after, chosen=False)
            if after is None or (last is not None and after >= last):
                return
            if at_leisure:
                await asyncio.sleep(min(AT_LEISURE * (self.clock.monotonic() - began), LEISURE))

    async def place_chosen(self) -> None:
        """Put where it belongs all for which an operator chose another way than it waits for. Raises: SpoolError"""
        after = await self._place(None, chosen=True)
        while after is not None:
            after = await self._place(after, chosen=True)
        await self.refresh()

    async def follow_choice(self) -> None:
        """Place what came back to the store only after an operator had chosen another way for it; tried until the store lets it."""
        while not self.ended:
            try:
                await self.place_chosen()
                return
            except SpoolError as error:
                self.observer.trouble("mail cannot be moved to the transport chosen for it; the relay keeps trying", error)
                self.stall(True)
                await asyncio.sleep(AGAIN)

    async def _place(
        self, after: DeliveryId | None, *, chosen: bool, limit: int = SLICE, hasten: Hasten | None = waits_for_others
    ) -> DeliveryId | None:
        now, snapshot = self.clock.wall(), self.snapshot()

        def place(one: Delivery) -> Placement:
            return placing.placement_now(one, snapshot, self.pauses, now)

        return await self.spool.rekey(place, after, limit, hasten=hasten, now=now, chosen=chosen)

    async def hasten_mended(self) -> None:
        """Let all that waits for senders' domains go which were mended sooner than it had been put off for."""
        if self._hastening:
            return  # what is mended by the time that the queue was gone through has the next turn
        self._hastening = True
        try:
            while self.pauses.mended and not self.ended:
                mended, self.pauses.mended = self.pauses.mended, []
                await self._hasten({(pause.transport, pause.domain or ""): pause.reason.value for pause in mended})
        except SpoolError as error:
            self.observer.trouble(
                "mail of a domain that works again cannot be sent early; it is sent at its next scheduled attempt", error
            )
        finally:
            self._hastening = False

    async def _hasten(self, mended: Mapping[tuple[str, str], str]) -> None:
        """Go through the queue once. `mended`: by transport and sender's domain, why that was paused. Raises: SpoolError"""
        snapshot, reasons = self.snapshot(), {SENDER_DOMAIN, *mended.values()}

        def waits(one: Delivery) -> bool:
            if one.reason not in reasons:
                return False
            why = mended.get((one.placement.lane.transport, placing.sender_domain_of(one.message, snapshot)))
            return why is not None and one.reason in (SENDER_DOMAIN, why)

        after = await self._place(None, chosen=False, hasten=waits)
        while after is not None and not self.ended:
            after = await self._place(after, chosen=False, hasten=waits)
        await self.refresh()

    async def catch_up(self) -> None:
        """Place anew what is queued where another configuration placed it: what waits for later knows nothing of this one."""
        if self.counts.placed == placing.shape(self.snapshot()):
            return
        try:
            await self.place_anew(at_leisure=True)
            await self.refresh()
        except SpoolError as error:
            self.observer.trouble("queued mail could not be re-routed now; it is re-routed at its next scheduled attempt", error)

    async def refresh(self) -> None:
        """Look at the store's lanes anew. Raises: SpoolError"""
        for key, due in (await self.spool.lanes()).items():
            lane = self.lanes.get(key)
            lane.note(None, due)
            self.pump(lane)
