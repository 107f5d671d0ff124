"""The scheduler: which lane sends when, within its concurrency, its pace, its pauses and the limits of its routes.

What is in a lane is claimed from the store; what is in flight has its attempt on record there. Lanes are pumped by
events (acceptance, the end of an attempt, a timer), never by a poll.

Invariant: the store is the truth. Losing every lane loses nothing: `start` finds it all again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator

from sesrelay.delivery.attempt import Attempter, Settled
from sesrelay.delivery.gates import Gates
from sesrelay.delivery.ids import Ids
from sesrelay.delivery.lane import Lane, Ready
from sesrelay.delivery.lanes import Lanes
from sesrelay.delivery.nowhere import Nowhere
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import sender_domain_of
from sesrelay.delivery.recovery import close_open_attempts
from sesrelay.delivery.room import LARGE, Room
from sesrelay.delivery.settle import Settler
from sesrelay.delivery.slots import Slots
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.delivery.supply import Supply
from sesrelay.delivery.tasks import Tasks
from sesrelay.mail.delivery import Batch, LaneKey, Priority, State, Stream
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.outcome import PauseReason
from sesrelay.policy.budget import MEMORY, ByteBudget
from sesrelay.policy.fairness import attempts_at_once
from sesrelay.seams import Clock, Observer, Pause, Spool, SpoolError, Transport

STALL = 2.0  # seconds before a store in trouble is asked again
MOVE_EVERY = 5.0  # seconds between tries to move what waits before a paused lane to another way out
WAITS_FOR_OTHERS = frozenset({*(reason.value for reason in PauseReason), "sender_domain"})
"""Reasons of mail that waits for something a changed configuration may have mended."""


class Scheduler:
    """All that is sent by one process."""

    def __init__(
        self, spool: Spool, snapshot: Snapshot, clock: Clock, observer: Observer, memory: ByteBudget | None = None
    ) -> None:
        self.snapshot = snapshot
        self.pauses = Pauses()
        self.gates = Gates()
        self.gates.configure(snapshot.routing.limits, clock.monotonic())
        self.ids = Ids(clock)
        self._spool = spool
        self._clock = clock
        self._observer = observer
        self._settler = Settler(lambda: self.snapshot, self.pauses, self.ids, clock, observer, self.gates)
        self.attempts = Attempter(spool, self._settler, clock, observer, self._stall)
        self._room = Room(memory or ByteBudget(MEMORY), spool)
        self._nowhere: Transport = Nowhere()
        self._tasks = Tasks(observer)
        self._supply = Supply(
            spool, clock, observer, self.pauses, self.gates, self._tasks, lambda: self.snapshot, self.transport, self._pump, self._stall
        )  # fmt: skip
        self._lanes = self._supply.lanes = Lanes(self._pump, self._supply.crowded_out)
        self._slots = Slots()
        self._starved: dict[LaneKey, None] = {}
        self._stalled = False
        self._draining = False

    # --- for acceptance ---

    def offer(self, batch: Batch) -> Transport | None:
        """Take a slot and tokens for a batch that is about to be stored, if its lane could send it this very moment.

        Return the way out that will send it, also if a reload comes between: `launch` and `withdraw` want it back.
        """
        lane = self._lanes.get(batch.lane)
        transport = self.transport(batch.lane.transport)
        now = self._clock.wall()
        if self._draining or self._stalled or len(lane) or lane.wake <= now or lane.claiming or batch.message.size > LARGE:
            return None
        limit = attempts_at_once(batch.deliveries[0].placement.priority, min(lane.window, transport.concurrency))
        if lane.inflight >= limit or not self._slots.free_for(transport):
            return None
        if self.pauses and (
            self.pauses.must_probe(lane.key)
            or self.pauses.holds_sender(batch.lane.transport, sender_domain_of(batch.message, self.snapshot))
        ):
            return None
        if self.gates and not self.gates.open_for(batch.deliveries[0].placement.site, len(batch), now, self._clock.monotonic()):
            return None
        if transport.pace(len(batch), self._clock.monotonic(), batch.priority) > 0.0:
            return None
        self._take(lane, transport, batch.deliveries[0].placement.site, len(batch))
        return transport

    def withdraw(self, batch: Batch, transport: Transport) -> None:
        """Give back what `offer` took: the message could not be stored."""
        transport.give_back(len(batch))
        self._freed(self._lanes.get(batch.lane), transport, batch.deliveries[0].placement.site, len(batch), tried=False)

    def launch(self, batch: Batch, content: Large, transport: Transport) -> None:
        """Send a batch that was offered and is now stored as in flight."""
        at_hand = None if isinstance(content, Filed) else content  # where all that was large of it was its header
        ready = Ready(batch, batch.deliveries[0].placement.stream, at_hand)
        self._tasks.spawn(self._attempt(self._lanes.get(batch.lane), ready, transport, opened=True))

    def has_room(self, batches: Iterable[Batch]) -> bool:
        """Tell whether every lane can take another batch of those into memory."""
        now = self._clock.wall() if self.gates else 0.0
        return not self._draining and all(
            self._lanes.has_room(batch.lane, batch.deliveries[0].placement.stream)
            and (not self.gates or self.gates.shut_until(batch.deliveries[0].placement.site, now) is None)
            for batch in batches
        )

    def enqueue(self, batch: Batch, content: Large) -> None:
        """Put a stored and claimed batch into its lane: the one that routing wants now, should a reload have come between."""
        ready = Ready(batch, batch.deliveries[0].placement.stream, self._lanes.fresh.worth(content))
        known = batch.lane.transport in self.snapshot.transports
        for lane in [self._lanes.put(ready)] if known else self._supply.put_anew(ready, self._clock.wall()):
            self._pump(lane)

    def stored(self, key: LaneKey, stream: Stream | None = None, due: float = -math.inf) -> None:
        """Note that the store has something for a lane that memory does not, due now or later; `stream` None: whichever."""
        lane = self._lanes.get(key)
        lane.note(stream, max(due, self._clock.wall()))
        self._pump(lane)

    # --- for the rest of the house ---

    async def start(self) -> None:
        """Settle what a crash left open, as in doubt, and take up what is queued. Raises: SpoolError"""
        await self._supply.restore_counts()
        doubts = await close_open_attempts(self._spool, self.attempts, self._clock)
        if doubts:
            self._observer.notice("attempts were interrupted and are in doubt", deliveries=doubts)
        await self.refresh()
        self._tasks.spawn(self._supply.catch_up(WAITS_FOR_OTHERS))

    async def refresh(self) -> None:
        """Look at the store's lanes anew, as after a change by an operator. Raises: SpoolError"""
        await self._supply.refresh()

    async def swap(self, snapshot: Snapshot) -> None:
        """Go on with another configuration: what waits is placed anew, what is in flight ends where it is."""
        self.snapshot = snapshot
        self.gates.configure(snapshot.routing.limits, self._clock.monotonic())
        for lifted in self.pauses.forget():
            self._observer.resumed(lifted)
        now = self._clock.wall()
        for ready in [ready for lane in self._lanes.values() for ready in self._lanes.empty(lane)]:
            self._supply.put_anew(ready, now)
        await self.place_anew()

    async def place_anew(self) -> None:
        """Go through all that is queued, in slices, and put each delivery where it belongs now. Raises: SpoolError"""
        await self._supply.place_anew(WAITS_FOR_OTHERS)
        await self.refresh()
        for lane in self._lanes.values():
            self._pump(lane)

    async def move(self) -> None:
        """Place anew what an operator gave another way out, in memory and in the store; what is in flight, when that has ended.

        Raises: SpoolError
        """
        self._supply.moves += 1
        await self._supply.shelve(self._lanes.values())
        await self._supply.place_chosen()

    def note_shut(self) -> None:
        """Count for how long a cap has kept a route waiting; wanted every minute."""
        if self.gates and self.gates.note_shut(self._clock.wall()):
            self._supply.save_counts()

    async def shelve_paused(self) -> None:
        """Give what waits in memory before a paused lane back to the store, where its age is looked at. Raises: SpoolError"""
        now = self._clock.wall()
        paused = (lane for lane in self._lanes.values() if len(lane) and self.pauses.blocked_until(lane.key, now) is not None)
        await self._supply.shelve(list(paused))

    def waits(self) -> Iterator[Pause]:
        """Yield all that keeps part of the queue waiting: the pauses, and the routes that have reached a cap."""
        yield from self.pauses
        yield from self.gates.waits(self.snapshot.routing.rules, self._clock.wall())

    def capped(self, route: str) -> tuple[str, float] | None:
        """Return by which cap a route waits now, and until when in Unix seconds; None where it does not."""
        found = self.gates.reached(route, self._clock.wall())
        return (found.cap, found.until) if found is not None else None

    async def retired(self, transports: Iterable[Transport]) -> None:
        """Wait until no attempt by any of `transports`, which are no longer in force, is under way."""
        await self._slots.unused(transports)

    def hurry(self) -> None:
        """Probe every pause now."""
        self.pauses.hurry(self._clock.wall())
        for lane in self._lanes.values():
            self._pump(lane)

    async def drain(self, grace: float) -> int:
        """Start nothing more, and give what is in flight `grace` seconds; return how many attempts had to be cut."""
        self._draining = self._supply.ended = True
        self._lanes.close()
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
            self._lanes.arm(lane, blocked - now)
            return
        if self.gates:
            self._supply.put_off_shut(lane, now)
        postponed = self._start_ready(lane, now)
        if lane.wake <= now:
            self._supply.refill(lane, now)
        if lane.wake < math.inf and (later := lane.next_wake(now)) < math.inf:
            self._lanes.arm(lane, later - now)
        for ready, until in postponed:
            self._supply.put_off(ready, until, now)
        if lane.idle and not postponed and lane.timer is None:
            self._lanes.drop(lane)

    def _start_ready(self, lane: Lane, now: float) -> list[tuple[Ready, float]]:
        """Start batches of `lane` while it may; return those whose sender's domain is paused, with the time it is until."""
        transport = self.transport(lane.key.transport)
        probing = bool(self.pauses) and self.pauses.must_probe(lane.key)
        limit = min(lane.inflight + 1 if probing else lane.window, transport.concurrency)
        postponed: list[tuple[Ready, float]] = []
        urgent_only = False  # what is not urgent has to wait for its pace; a quota's reserve lets urgent mail pass it
        while len(lane) and lane.inflight < limit:
            stream = lane.next(self._closed(lane, now, limit, urgent_only))
            if stream is None:
                break
            batch = lane.head(stream).batch
            until = self._supply.sender_waits(batch, now) if self.pauses else None
            if until is not None:
                ready = lane.pop(stream, served=False)
                self._lanes.fresh.drop(ready)
                postponed.append((ready, until))
                continue
            if not self._slots.free_for(transport):
                self._starved[lane.key] = None
                break
            if self.gates and (left := self.gates.left(stream.site, now)) < len(batch):
                self._lanes.fresh.drop(lane.cut(stream, int(left)))
                batch = lane.head(stream).batch
            wait = transport.pace(len(batch), self._clock.monotonic(), batch.priority)
            if wait > 0.0:
                self._lanes.arm(lane, wait)
                if urgent_only or stream.priority is Priority.HIGH:
                    break
                urgent_only = True
                continue
            ready = lane.pop(stream)
            self._take(lane, transport, stream.site, len(batch))
            if self.pauses:
                self.pauses.probe_sender(lane.key.transport, sender_domain_of(batch.message, self.snapshot), now)
            if probing:
                self.pauses.probe(lane.key)
            self._tasks.spawn(self._attempt(lane, ready, transport, opened=False))
        return postponed

    async def _attempt(self, lane: Lane, ready: Ready, transport: Transport, *, opened: bool) -> None:
        settled, tried, moves = None, True, self._supply.moves
        try:
            async with self._room.content(ready) as content:  # before it is on record: who waits is not in doubt
                batch, fresh = (ready.batch, content) if opened else await self.attempts.open(ready.batch, content)
                if batch is not None:
                    settled = await self.attempts.run(batch, transport, fresh, lambda: self._wanted(lane))
        except SpoolError as error:
            self._observer.trouble("an attempt cannot be put on record; sending has stopped until it can", error)
            self._stall(True)
            tried = False
            transport.give_back(len(ready.batch))
            lane.put_back(Ready(ready.batch, ready.stream))
        finally:
            if not opened:
                self._lanes.fresh.drop(ready)
            if self.pauses:
                self.pauses.probe_ended(lane.key)
            if settled is not None:
                lane.learn(taken=settled.taken, trouble=settled.trouble, limit=transport.concurrency)
                self._follow_up(settled)
                if settled.due and moves != self._supply.moves:
                    self._tasks.spawn(self._supply.place_chosen())
            untaken = 0 if settled is not None and not self.gates else len(ready.batch) - (settled.accepted if settled else 0)
            self._freed(lane, transport, ready.stream.site, untaken, tried=tried)

    def _follow_up(self, settled: Settled) -> None:
        """Wake the lanes in which an attempt has left something to do."""
        for delivery in settled.batch.deliveries if settled.due else ():
            due = settled.due.get(delivery.id)
            if due is not None:
                lane = self._lanes.get(settled.batch.lane)
                lane.note(delivery.placement.stream, due)
                self._lanes.arm(lane, due - self._clock.wall())
        for report in settled.reports:
            for delivery in report.deliveries:
                if delivery.state is State.QUEUED:
                    self.stored(delivery.placement.lane, delivery.placement.stream)

    def _fail_over(self, lane: Lane, now: float) -> None:
        """Move what waits before a lane that has been paused for too long to the next transport of its route."""
        since = self.pauses.since(lane.key)
        patience = self.transport(lane.key.transport).failover_after
        if since is None or now - since < patience:
            if since is not None and patience < math.inf:
                self._lanes.arm(lane, since + patience - now)
            return
        if now - lane.moved_at < MOVE_EVERY:
            if len(lane) or lane.wake <= now:
                self._lanes.arm(lane, lane.moved_at + MOVE_EVERY - now)
            return
        lane.moved_at = now
        for ready in self._lanes.empty(lane):
            for other in self._supply.put_anew(ready, now):
                if other is not lane:
                    self._pump(other)
        if lane.wake <= now:
            self._supply.refill(lane, now)

    # --- bookkeeping ---

    def _closed(self, lane: Lane, now: float, limit: int, urgent_only: bool) -> Callable[[Stream], bool] | None:
        """Return the question whether a stream of `lane` has to wait, though others may go; None where none has to."""
        gated = None
        if self.gates:
            gated = self.gates.closed(lane.key, now, self._clock.monotonic(), lambda wait: self._lanes.arm(lane, wait))
        if urgent_only:
            lowest = Priority.HIGH
        elif lane.inflight >= attempts_at_once(Priority.LOW, limit):
            lowest = Priority.NORMAL
        else:
            return gated
        return lambda stream: stream.priority > lowest or (gated is not None and gated(stream))

    def _wanted(self, lane: Lane) -> bool:
        """Tell whether anything waits for a slot that `lane` has, here or in the store."""
        return bool(len(lane) or self._starved or lane.claiming)

    def _take(self, lane: Lane, transport: Transport, site: str, recipients: int) -> None:
        """Take the slot, and what the route's limits count, of a batch that goes out; its tokens are taken already."""
        lane.inflight += 1
        self._slots.take(transport)
        if self.gates and self.gates.take(site, recipients, self._clock.wall(), self._clock.monotonic()):
            self._supply.save_counts()

    def _freed(self, lane: Lane, transport: Transport, site: str, untaken: int, *, tried: bool = True) -> None:
        """Take note of a slot that is free again; a lane that had to wait for one comes before the lane that gave it back."""
        lane.inflight -= 1
        self._slots.give_back(transport)
        if self.gates:
            waiting, changed = self.gates.ended(site, untaken, self._clock.wall(), tried=tried)
            if changed:
                self._supply.save_counts()
            for key in waiting:
                other = self._lanes.get(key)
                if changed:
                    other.note(None, self._clock.wall())
                self._pump(other)
        if self._starved:
            first = next(iter(self._starved))
            del self._starved[first]
            self._pump(self._lanes.get(first))
        self._pump(lane)

    def _stall(self, trouble: bool) -> None:
        """Stop starting attempts while the store is in trouble; ask it again after a while."""
        if trouble and not self._stalled:
            self._stalled = True
            asyncio.get_running_loop().call_later(STALL, self._stall, False)
        elif not trouble and self._stalled:
            self._stalled = False
            for lane in self._lanes.values():
                self._pump(lane)
