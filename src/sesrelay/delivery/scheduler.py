"""The scheduler: all that is sent by one process, as acceptance and the rest of the house see it.

What is in a lane is claimed from the store; what is in flight has its attempt on record there.

Invariant: the store is the truth. Losing every lane loses nothing: `start` finds it all again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator

from sesrelay.delivery.attempt import Attempter
from sesrelay.delivery.gates import Gates
from sesrelay.delivery.ids import Ids
from sesrelay.delivery.lane import Ready
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import sender_domain_of
from sesrelay.delivery.pump import STALL, Pump, reserving
from sesrelay.delivery.recovery import close_open_attempts
from sesrelay.delivery.room import LARGE, Room
from sesrelay.delivery.settle import Settler
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.delivery import Batch, LaneKey, Priority, Stream
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.outcome import PauseReason
from sesrelay.policy import quota
from sesrelay.policy.budget import MEMORY, ByteBudget
from sesrelay.policy.fairness import attempts_at_once
from sesrelay.seams import Clock, Observer, Pause, Spool, SpoolError, Transport

RECOVERY = 5.0  # seconds that a start waits for what was interrupted to be settled; a full disk may take hours


class Scheduler:
    """Lanes, and what keeps them: their pauses, and the limits of their routes."""

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
        settler = Settler(lambda: self.snapshot, self.pauses, self.ids, clock, observer, self.gates)
        room = Room(memory or ByteBudget(MEMORY), spool)
        self._pump = Pump(spool, lambda: self.snapshot, settler, room, self.pauses, self.gates, clock, observer)
        self._lanes = self._pump.lanes
        self._supply = self._pump.supply
        self.transport = self._pump.transport
        self._started = False
        self._recovery: asyncio.Task[None] | None = None

    # --- for acceptance ---

    def offer(self, batch: Batch) -> Transport | None:
        """Take a slot and tokens for a batch that is about to be stored, if its lane could send it this very moment.

        Return the way out that will send it, also if a reload comes between: `launch` and `withdraw` want it back.
        """
        lane = self._lanes.get(batch.lane)
        transport = self.transport(batch.lane.transport)
        now = self._clock.wall()
        if self._pump.at_rest or len(lane) or lane.wake <= now or lane.claiming or batch.message.size > LARGE:
            return None
        limit = attempts_at_once(batch.deliveries[0].placement.priority, min(lane.window, transport.concurrency))
        if lane.inflight >= limit or not self._pump.slots.free_for(transport, batch.lane.transport, lane.standing):
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
        self._pump.take(lane, transport, batch.deliveries[0].placement.stream, len(batch))
        return transport

    def withdraw(self, batch: Batch, transport: Transport) -> None:
        """Give back what `offer` took: the message could not be stored."""
        transport.give_back(len(batch))
        lane, stream = self._lanes.get(batch.lane), batch.deliveries[0].placement.stream
        self._pump.freed(lane, transport, stream, len(batch), len(batch), tried=False)

    def launch(self, batch: Batch, content: Large, transport: Transport) -> None:
        """Send a batch that was offered and is now stored as in flight."""
        at_hand = None if isinstance(content, Filed) else content  # where all that was large of it was its header
        ready = Ready(batch, batch.deliveries[0].placement.stream, at_hand)
        self._pump.tasks.spawn(self._pump.attempt(self._lanes.get(batch.lane), ready, transport, opened=True))

    def has_room(self, batches: Iterable[Batch]) -> bool:
        """Tell whether every lane can take another batch of those into memory."""
        now = self._clock.wall() if self.gates else 0.0
        return not self._pump.closed and all(
            self._lanes.has_room(batch.lane, batch.deliveries[0].placement.stream)
            and (not self.gates or self.gates.shut_until(batch.deliveries[0].placement.site, now) is None)
            for batch in batches
        )

    def enqueue(self, batch: Batch, content: Large) -> None:
        """Put a stored and claimed batch into its lane: the one that routing wants now, should a reload have come between."""
        ready = Ready(batch, batch.deliveries[0].placement.stream, self._lanes.fresh.worth(content))
        known = batch.lane.transport in self.snapshot.transports
        for lane in [self._lanes.put(ready)] if known else self._supply.put_anew(ready, self._clock.wall()):
            self._pump.run(lane)

    def stored(self, key: LaneKey, stream: Stream | None = None, due: float = -math.inf) -> None:
        """Note that the store has something for a lane that memory does not, due now or later; `stream` None: whichever."""
        self._pump.stored(key, stream, due)

    # --- for the rest of the house ---

    async def start(self) -> None:
        """Settle what a crash left open, as in doubt, and take up what is queued. Nothing is sent before; where the store cannot
        be written it happens as soon as it can, and `start` returns all the same.

        Raises: SpoolError
        """
        self._pump.wait()  # first: an operator may ask for a retry by the page, which is there already
        await self._pump.counts.restore()
        self._recovery = recovery = self._pump.tasks.spawn(self._recover())
        await asyncio.wait({recovery}, timeout=RECOVERY)
        if recovery.done():
            recovery.result()
        self._started = True

    async def _recover(self) -> None:
        """Raises: SpoolError until `start` has returned"""
        while True:
            try:
                doubts = await close_open_attempts(self._spool, self.attempts, self._clock)
                if doubts:
                    self._observer.notice(
                        "attempts were interrupted; whether the messages were sent is in doubt", deliveries=doubts
                    )
                await self.refresh()
                self._pump.begin()  # once all of this is done: what is under way by then is not closed as interrupted
                break
            except SpoolError as error:
                if not self._started:
                    raise
                self._observer.trouble("the queue cannot be recovered after the start; the relay keeps trying", error)
                await asyncio.sleep(STALL)
        self._pump.tasks.spawn(self._supply.catch_up())

    async def refresh(self) -> None:
        """Look at the store's lanes anew, as after a change by an operator. Raises: SpoolError"""
        await self._supply.refresh()

    async def swap(self, snapshot: Snapshot) -> None:
        """Go on with another configuration: what waits is placed anew, what is in flight ends where it is."""
        self.snapshot = snapshot
        now = self._clock.wall()
        for lane in map(self._lanes.get, self.gates.configure(snapshot.routing.limits, self._clock.monotonic())):
            for stream in [*lane.wakes]:
                lane.note(stream, now)  # which put it off for as long as the old cap would have lasted
        for lifted in self.pauses.forget():
            self._observer.resumed(lifted)
        for ready in [ready for lane in self._lanes.values() for ready in self._lanes.empty(lane)]:
            self._supply.put_anew(ready, now)
        await self.place_anew()

    async def place_anew(self) -> None:
        """Go through all that is queued, in slices, and put each delivery where it belongs now. Raises: SpoolError"""
        await self._supply.place_anew()
        await self.refresh()
        self._pump.run_all()

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
            self._pump.counts.save()

    async def shelve_paused(self) -> None:
        """Give what waits in memory before a paused lane back to the store, where its age is looked at. Raises: SpoolError"""
        now = self._clock.wall()
        paused = (lane for lane in self._lanes.values() if len(lane) and self.pauses.blocked_until(lane.key, now) is not None)
        await self._supply.shelve(list(paused))

    def paused(self) -> Iterator[Pause]:
        """Yield the pauses, for each transport that waits behind one."""
        return self.pauses.told(lane.key for lane in self._lanes.values())

    def waits(self) -> Iterator[Pause]:
        """Yield all that keeps part of the queue waiting: the pauses, the routes at a cap, and what yields to urgent mail."""
        now = self._clock.wall()
        yield from self.paused()
        yield from self.gates.waits(self.snapshot.routing.rules, now)
        for name, transport in self.snapshot.transports.items():
            if (since := _reserved_since(transport)) is not None:
                until, remedy = quota.next_look(since, now), f"{quota.KEPT}; {quota.RESERVE_REMEDY}"
                yield Pause(name, None, PauseReason.QUOTA, since, until, remedy, cap=quota.RESERVE)

    def kept_back(self, route: str, lane: LaneKey, priority: Priority) -> tuple[str, float] | None:
        """Return why mail waits in `lane` now, were it due, and until when in Unix seconds; None where it does not."""
        now = self._clock.wall()
        found = self.gates.reached(route, now)
        if found is not None:
            return found.cap, found.until
        pause = self.pauses.longest(lane)
        if pause is not None:
            return pause.reason.value, pause.until
        since = None if priority is Priority.HIGH else _reserved_since(self.transport(lane.transport))
        if since is not None:
            return quota.RESERVE, quota.next_look(since, now)
        busy = self.gates.busy(route, self._clock.monotonic())
        return None if busy is None else (busy[0], now + busy[1])

    async def retired(self, transports: Iterable[Transport]) -> None:
        """Wait until no attempt by any of `transports`, which are no longer in force, is under way."""
        await self._pump.slots.unused(transports)

    def set_back(self, seconds: float) -> None:
        """Let pauses and caps keep what is left of them after the clock was set back by `seconds`."""
        self.pauses.set_back(seconds)
        if self.gates.set_back(seconds):
            self._pump.counts.save()

    def hurry(self) -> None:
        """Probe every pause now."""
        self.pauses.hurry(self._clock.wall())
        self._pump.run_all()

    async def drain(self, grace: float) -> int:
        """Start nothing more, and give what is in flight `grace` seconds; return how many were cut without an outcome."""
        self._pump.close()
        if self._recovery is not None:
            self._recovery.cancel()  # the next start finds again what it could not settle
        return await self._pump.tasks.finish(grace)

    @property
    def attempts(self) -> Attempter:
        return self._pump.attempts

    @property
    def in_flight(self) -> int:
        return self._pump.slots.taken


def _reserved_since(transport: Transport) -> float | None:
    kept = reserving(transport)
    return None if kept is None else kept.reserved_since()
