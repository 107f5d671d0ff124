"""The scheduler: which lane sends when, within its concurrency, its pace and its pauses.

What is in a lane is claimed from the store; what is in flight has its attempt on record there. Lanes are pumped by
events (acceptance, the end of an attempt, a timer), never by a poll.

Invariant: the store is the truth. Losing every lane loses nothing: `start` finds it all again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping

from sesrelay.delivery import placing
from sesrelay.delivery.attempt import Attempter, Settled
from sesrelay.delivery.fresh import Fresh
from sesrelay.delivery.ids import Ids
from sesrelay.delivery.lane import ROOM, Lane, Ready
from sesrelay.delivery.nowhere import Nowhere
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.recovery import close_open_attempts
from sesrelay.delivery.room import LARGE, Room
from sesrelay.delivery.settle import Settler, sender_domain_of
from sesrelay.delivery.slots import Slots
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.delivery.tasks import Tasks
from sesrelay.mail.delivery import Batch, Delivery, LaneKey, Placement, State
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.outcome import PauseReason
from sesrelay.policy.batching import batches
from sesrelay.policy.budget import MEMORY, ByteBudget
from sesrelay.seams import Clock, Observer, Spool, SpoolError, Transport

STALL = 2.0  # seconds before a store in trouble is asked again
MOVE_EVERY = 5.0  # seconds between tries to move what waits before a paused lane to another way out
WAITS_FOR_OTHERS = frozenset({*(reason.value for reason in PauseReason), "sender_domain"})
"""Reasons of mail that waits for something a changed configuration may have mended."""
LONGEST_TIMER = 60.0  # seconds; wall time may jump, so no timer trusts it for longer


class Scheduler:
    """All lanes of one process."""

    def __init__(
        self, spool: Spool, snapshot: Snapshot, clock: Clock, observer: Observer, memory: ByteBudget | None = None
    ) -> None:
        self.snapshot = snapshot
        self.pauses = Pauses()
        self.ids = Ids(clock)
        self._spool = spool
        self._clock = clock
        self._observer = observer
        self._settler = Settler(lambda: self.snapshot, self.pauses, self.ids, clock, observer)
        self.attempts = Attempter(spool, self._settler, clock, observer, self._stall)
        self._room = Room(memory or ByteBudget(MEMORY))
        self._nowhere: Transport = Nowhere()
        self._lanes: dict[LaneKey, Lane] = {}
        self._tasks = Tasks(observer)
        self._slots = Slots()
        self._starved: dict[LaneKey, None] = {}
        self._fresh = Fresh()
        self._stalled = False
        self._draining = False

    # --- for acceptance ---

    def offer(self, batch: Batch) -> Transport | None:
        """Take a slot and tokens for a batch that is about to be stored, if its lane could send it this very moment.

        Return the way out that will send it, also if a reload comes between: `launch` and `withdraw` want it back.
        """
        lane = self._lane(batch.lane)
        transport = self.transport(batch.lane.transport)
        now = self._clock.wall()
        if self._draining or self._stalled or len(lane) or lane.wake <= now or lane.claiming or batch.message.size > LARGE:
            return None
        if lane.inflight >= min(lane.window, transport.concurrency) or not self._slots.free_for(transport):
            return None
        if self.pauses and (
            self.pauses.must_probe(lane.key)
            or self.pauses.holds_sender(batch.lane.transport, sender_domain_of(batch, self.snapshot))
        ):
            return None
        if transport.pace(len(batch), self._clock.monotonic(), batch.priority) > 0.0:
            return None
        lane.inflight += 1
        self._slots.take(transport)
        return transport

    def withdraw(self, batch: Batch, transport: Transport) -> None:
        """Give back what `offer` took: the message could not be stored."""
        transport.give_back(len(batch))
        self._freed(self._lane(batch.lane), transport)

    def launch(self, batch: Batch, content: Canonical, transport: Transport) -> None:
        """Send a batch that was offered and is now stored as in flight."""
        self._tasks.spawn(self._attempt(self._lane(batch.lane), Ready(batch, content), transport, opened=True))

    def has_room(self, keys: Iterable[LaneKey]) -> bool:
        """Tell whether every lane can take another batch into memory."""
        return not self._draining and all(key not in self._lanes or self._lanes[key].has_room for key in keys)

    def enqueue(self, batch: Batch, content: Canonical) -> None:
        """Put a stored and claimed batch into its lane: the one that routing wants now, should a reload have come between."""
        keep = self._fresh.worth(content)
        known = batch.lane.transport in self.snapshot.transports
        groups = {batch.lane: batch.deliveries} if known else self._by_lane(batch.deliveries, self._clock.wall())
        for key, deliveries in groups.items():
            self._pump(self._put(Ready(Batch(key, tuple(deliveries)), keep)))

    def stored(self, key: LaneKey) -> None:
        """Note that the store has something due for a lane that memory had no room for."""
        lane = self._lane(key)
        lane.wake = min(lane.wake, self._clock.wall())
        self._pump(lane)

    # --- for the rest of the house ---

    async def start(self) -> None:
        """Settle what a crash left open, as in doubt, and take up what is queued. Raises: SpoolError"""
        doubts = await close_open_attempts(self._spool, self.attempts, self._clock)
        if doubts:
            self._observer.notice("attempts were interrupted and are in doubt", deliveries=doubts)
        await self.refresh()

    async def refresh(self) -> None:
        """Look at the store's lanes anew, as after a change by an operator. Raises: SpoolError"""
        for key, due in (await self._spool.lanes()).items():
            lane = self._lane(key)
            lane.wake = min(lane.wake, due)
            self._pump(lane)

    async def swap(self, snapshot: Snapshot) -> None:
        """Go on with another configuration: what waits is placed anew, what is in flight ends where it is."""
        self.snapshot = snapshot
        for lifted in self.pauses.forget():
            self._observer.resumed(lifted)
        now = self._clock.wall()
        waiting = [ready for lane in list(self._lanes.values()) for ready in self._empty(lane)]
        for ready in waiting:
            for key, deliveries in self._by_lane(ready.batch.deliveries, now).items():
                self._put(Ready(Batch(key, tuple(deliveries)), ready.content))
        await self.place_anew()

    async def place_anew(self) -> None:
        """Go through all that is queued, in slices, and put each delivery where it belongs now. Raises: SpoolError"""
        now, snapshot, after = self._clock.wall(), self.snapshot, None

        def place(one: Delivery) -> Placement:
            return placing.replace_delivery(one, snapshot, self.pauses, now)

        while True:
            after = await self._spool.rekey(place, after, 500, hasten=WAITS_FOR_OTHERS, now=now)
            if after is None:
                break
        await self.refresh()
        for lane in list(self._lanes.values()):
            self._pump(lane)

    async def shelve_paused(self) -> None:
        """Give what waits in memory before a paused lane back to the store, where its age is looked at. Raises: SpoolError"""
        now = self._clock.wall()
        for lane in list(self._lanes.values()):
            if len(lane) and self.pauses.blocked_until(lane.key, now) is not None:
                shelved = self._empty(lane)
                lane.wake = min(lane.wake, now)
                await self._spool.unclaim([one.id for ready in shelved for one in ready.batch.deliveries])

    async def retired(self, transports: Iterable[Transport]) -> None:
        """Wait until no attempt by any of `transports`, which are no longer in force, is under way."""
        await self._slots.unused(transports)

    def hurry(self) -> None:
        """Probe every pause now."""
        self.pauses.hurry(self._clock.wall())
        for lane in list(self._lanes.values()):
            self._pump(lane)

    async def drain(self, grace: float) -> int:
        """Start nothing more, and give what is in flight `grace` seconds; return how many attempts had to be cut."""
        self._draining = True
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
        return await self._tasks.finish(grace)

    def transport(self, name: str) -> Transport:
        return self.snapshot.transports.get(name, self._nowhere)

    @property
    def in_flight(self) -> int:
        return self._slots.taken

    # --- pumping ---

    def _pump(self, lane: Lane) -> None:
        """Start whatever `lane` may send now, fill it again, and set its timer for what may go later."""
        if self._draining or self._stalled:
            return
        now = self._clock.wall()
        blocked = self.pauses.blocked_until(lane.key, now) if self.pauses else None
        if blocked is not None:
            self._fail_over(lane, now)
            self._arm(lane, blocked - now)
            return
        postponed = self._start_ready(lane, now)
        if lane.wake <= now and lane.wants_refill:
            lane.claiming = True
            self._tasks.spawn(self._refill(lane))
        elif now < lane.wake < math.inf:
            self._arm(lane, lane.wake - now)
        for batch, until in postponed:
            self._tasks.spawn(self._postpone(batch, until))
        if lane.idle and not postponed and lane.timer is None:
            self._lanes.pop(lane.key, None)

    def _start_ready(self, lane: Lane, now: float) -> list[tuple[Batch, float]]:
        """Start batches of `lane` while it may; return those whose sender's domain is paused, with the time it is until."""
        transport = self.transport(lane.key.transport)
        probing = bool(self.pauses) and self.pauses.must_probe(lane.key)
        limit = min(lane.inflight + 1 if probing else lane.window, transport.concurrency)
        postponed: list[tuple[Batch, float]] = []
        while len(lane) and lane.inflight < limit:
            batch = lane.peek().batch
            until = (
                self.pauses.sender_wait(lane.key.transport, sender_domain_of(batch, self.snapshot), now) if self.pauses else None
            )
            if until is not None:
                self._fresh.drop(lane.pop())
                postponed.append((batch, until))
                continue
            if not self._slots.free_for(transport):
                self._starved[lane.key] = None
                break
            wait = transport.pace(len(batch), self._clock.monotonic(), batch.priority)
            if wait > 0.0:
                self._arm(lane, wait)
                break
            ready = lane.pop()
            lane.inflight += 1
            self._slots.take(transport)
            if self.pauses:
                self.pauses.probe_sender(lane.key.transport, sender_domain_of(batch, self.snapshot), now)
            if probing:
                self.pauses.probe(lane.key)
            self._tasks.spawn(self._attempt(lane, ready, transport, opened=False))
        return postponed

    async def _attempt(self, lane: Lane, ready: Ready, transport: Transport, *, opened: bool) -> None:
        settled = None
        try:
            async with self._room.taken(ready.batch.message.size):  # before it is on record: who waits is not in doubt
                batch = ready.batch if opened else await self.attempts.open(ready.batch)
                if batch is not None:
                    settled = await self.attempts.run(batch, transport, ready.content)
        except SpoolError as error:
            self._observer.trouble("an attempt cannot be put on record; sending has stopped until it can", error)
            self._stall(True)
            transport.give_back(len(ready.batch))
            lane.put_back(Ready(ready.batch))
        finally:
            if not opened:
                self._fresh.drop(ready)
            if self.pauses:
                self.pauses.probe_ended(lane.key)
            if settled is not None:
                lane.learn(taken=settled.taken, trouble=settled.trouble, limit=transport.concurrency)
                self._follow_up(settled)
            self._freed(lane, transport)

    def _follow_up(self, settled: Settled) -> None:
        """Wake the lanes in which an attempt has left something to do."""
        for due in settled.due.values():
            lane = self._lane(settled.batch.lane)
            lane.wake = min(lane.wake, due)
            self._arm(lane, lane.wake - self._clock.wall())
        for report in settled.reports:
            for delivery in report.deliveries:
                if delivery.state is State.QUEUED:
                    self.stored(delivery.placement.lane)

    async def _refill(self, lane: Lane) -> None:
        """Claim what is due in the store, and put each batch where routing wants it now."""
        now, before, lane.wake = self._clock.wall(), lane.wake, math.inf
        try:
            claim = await self._spool.claim(lane.key, ROOM - len(lane), now)
        except SpoolError as error:
            lane.wake = min(lane.wake, before)
            self._observer.trouble("the queue cannot be read; sending has stopped until it can", error)
            self._stall(True)
            return
        finally:
            lane.claiming = False
        lane.wake = min(lane.wake, math.inf if claim.next_due is None else claim.next_due)
        touched = {lane.key: lane}
        for key, deliveries in self._by_lane(claim.deliveries, now).items():
            for batch in batches(key, deliveries, self.transport(key.transport).batch_limit):
                touched[key] = self._put(Ready(batch))
        for one in touched.values():
            self._pump(one)

    def _by_lane(self, deliveries: Iterable[Delivery], now: float) -> Mapping[LaneKey, list[Delivery]]:
        groups: dict[LaneKey, list[Delivery]] = {}
        for delivery in deliveries:
            key = placing.replace_delivery(delivery, self.snapshot, self.pauses, now).lane
            groups.setdefault(key, []).append(delivery)
        return groups

    async def _postpone(self, batch: Batch, until: float) -> None:
        """Let a batch whose sender's domain is paused wait in the store."""
        try:
            await self._spool.postpone([delivery.id for delivery in batch.deliveries], until, "sender_domain")
        except SpoolError as error:
            self._observer.trouble("a message cannot be postponed", error, queue_id=batch.message.id)
            self._put(Ready(batch))
            self._stall(True)
            return
        for delivery in batch.deliveries:
            home = self._lane(delivery.placement.lane)
            home.wake = min(home.wake, until)
            self._arm(home, until - self._clock.wall())

    def _fail_over(self, lane: Lane, now: float) -> None:
        """Move what waits before a lane that has been paused for too long to the next transport of its route."""
        since = self.pauses.since(lane.key)
        patience = self.transport(lane.key.transport).failover_after
        if since is None or now - since < patience:
            if since is not None and patience < math.inf:
                self._arm(lane, since + patience - now)
            return
        if now - lane.moved_at < MOVE_EVERY:
            if len(lane) or lane.wake <= now:
                self._arm(lane, lane.moved_at + MOVE_EVERY - now)
            return
        lane.moved_at = now
        for ready in self._empty(lane):
            for key, deliveries in self._by_lane(ready.batch.deliveries, now).items():
                self._put(Ready(Batch(key, tuple(deliveries)), ready.content if key == lane.key else None))
                if key != lane.key:
                    self._pump(self._lane(key))
        if lane.wake <= now and lane.wants_refill:
            lane.claiming = True
            self._tasks.spawn(self._refill(lane))

    # --- bookkeeping ---

    def _lane(self, key: LaneKey) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
        return lane

    def _put(self, ready: Ready) -> Lane:
        lane = self._lane(ready.batch.lane)
        lane.put(ready)
        self._fresh.add(ready)
        return lane

    def _empty(self, lane: Lane) -> list[Ready]:
        everything = lane.empty()
        for ready in everything:
            self._fresh.drop(ready)
        return everything

    def _freed(self, lane: Lane, transport: Transport) -> None:
        """Take note of a slot that is free again; a lane that had to wait for one comes before the lane that gave it back."""
        lane.inflight -= 1
        self._slots.give_back(transport)
        if self._starved:
            first = next(iter(self._starved))
            del self._starved[first]
            self._pump(self._lane(first))
        self._pump(lane)

    def _arm(self, lane: Lane, delay: float) -> None:
        """Pump `lane` in `delay` seconds, or sooner where it is armed for sooner already."""
        if self._draining:
            return
        loop = asyncio.get_running_loop()
        delay = min(max(delay, 0.001), LONGEST_TIMER)
        if lane.timer is not None:
            if lane.timer.when() <= loop.time() + delay:
                return
            lane.timer.cancel()
        lane.timer = loop.call_later(delay, self._ring, lane)

    def _ring(self, lane: Lane) -> None:
        lane.timer = None
        self._pump(lane)

    def _stall(self, trouble: bool) -> None:
        """Stop starting attempts while the store is in trouble; ask it again after a while."""
        if trouble and not self._stalled:
            self._stalled = True
            asyncio.get_running_loop().call_later(STALL, self._stall, False)
        elif not trouble and self._stalled:
            self._stalled = False
            for lane in list(self._lanes.values()):
                self._pump(lane)
