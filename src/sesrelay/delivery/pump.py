"""Lanes at work: which sends when, within its concurrency, its pace, its pauses and the limits of its routes.

A lane is pumped by events (acceptance, the end of an attempt, a timer), never by a poll.

Invariant: whatever takes a slot and tokens gives back what it did not use, and then the next lane has its turn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import cache
from typing import cast

from sesrelay.delivery.attempt import Attempter, Settled
from sesrelay.delivery.counts import Counts
from sesrelay.delivery.gates import Gates
from sesrelay.delivery.lane import Lane, Ready
from sesrelay.delivery.lanes import Lanes
from sesrelay.delivery.nowhere import Nowhere
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import sender_domain_of
from sesrelay.delivery.room import Room
from sesrelay.delivery.settle import Settler
from sesrelay.delivery.slots import Slots
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.delivery.supply import Supply
from sesrelay.delivery.tasks import Tasks
from sesrelay.mail.delivery import LaneKey, Priority, State, Stream
from sesrelay.policy.concurrency import Standing
from sesrelay.policy.fairness import attempts_at_once
from sesrelay.seams import Clock, Observer, Reserving, Spool, SpoolError, Transport

STALL = 2.0  # seconds before a store in trouble is asked again
MOVE_EVERY = 5.0  # seconds between tries to move what waits before a paused lane to another way out


def reserving(transport: Transport) -> Reserving | None:
    """Return a transport as one that keeps a reserve; None where it is none."""
    return cast(Reserving, transport) if _reserves(type(transport)) else None


@cache
def _reserves(kind: type[Transport]) -> bool:
    """Tell whether such a transport is `Reserving`: to look at each object takes longer than all else of a line of `queue list`."""
    return issubclass(kind, Reserving)


class Pump:
    """Starts what each lane may send. `snapshot` is asked for each time, so that a reload is followed."""

    def __init__(
        self,
        spool: Spool,
        snapshot: Callable[[], Snapshot],
        settler: Settler,
        room: Room,
        pauses: Pauses,
        gates: Gates,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.tasks = Tasks(observer)
        self.slots = Slots()
        self.attempts = Attempter(spool, settler, clock, observer, self.stall)
        self.counts = Counts(spool, clock, observer, gates, self.tasks)
        self.supply = Supply(
            spool, clock, observer, pauses, gates, self.counts, self.tasks, snapshot, self.transport, self.run, self.stall
        )  # fmt: skip
        self.lanes = self.supply.lanes = Lanes(self.run, self.supply.crowded_out)
        self._snapshot = snapshot
        self._room = room
        self._pauses = pauses
        self._gates = gates
        self._clock = clock
        self._observer = observer
        self._nowhere: Transport = Nowhere()
        self._starved: dict[tuple[str, Standing], dict[LaneKey, None]] = {}  # lanes that wait for a slot; whose turn it is in front
        self._stalled = False
        self._waiting = False
        self.closed = False
        self.at_rest = False  # nothing is to be started: the store is in trouble, or all of it only begins, or ends

    def transport(self, name: str) -> Transport:
        return self._snapshot().transports.get(name, self._nowhere)

    def stored(self, key: LaneKey, stream: Stream | None = None, due: float = -math.inf) -> None:
        """Note that the store has something for a lane that memory does not, due now or later; `stream` None: whichever."""
        lane = self.lanes.get(key)
        lane.note(stream, max(due, self._clock.wall()))
        self.run(lane)

    def run_all(self) -> None:
        for lane in self.lanes.values():
            self.run(lane)

    def run(self, lane: Lane) -> None:
        """Start whatever `lane` may send now, fill it again, and set its timer for what may go later."""
        if self.at_rest:
            return
        now = self._clock.wall()
        blocked = self._pauses.blocked_until(lane.key, now) if self._pauses else None
        if blocked is not None:
            self._fail_over(lane, now)
            self.lanes.arm(lane, blocked - now)
            return
        if self._gates:
            self.supply.put_off_shut(lane, now)
        postponed = self._start_ready(lane, now)
        if lane.wake <= now:
            self.supply.refill(lane, now)
        if lane.wake < math.inf and (later := lane.next_wake(now)) < math.inf:
            self.lanes.arm(lane, later - now)
        for ready, until in postponed:
            self.supply.put_off(ready, until, now)
        if lane.has_room_for_guests():
            self.supply.call_guests(lane, now)
        if len(lane) and self._pauses and (probed := self._pauses.blocked_until(lane.key, now)) is not None:
            self.lanes.arm(lane, probed - now)  # a probe that nobody answers keeps the others no longer from their next way out
        if lane.idle and not postponed and lane.timer is None:
            self.lanes.drop(lane)

    async def attempt(self, lane: Lane, ready: Ready, transport: Transport, *, opened: bool) -> None:
        """Send what was taken out of `lane`, its slot and tokens taken. `opened`: the attempt is on record already."""
        settled, tried, moves = None, True, self.supply.moves
        try:
            async with self._room.content(ready) as content:  # before it is on record: who waits is not in doubt
                batch, fresh = (ready.batch, content) if opened else await self.attempts.open(ready.batch, content)
                tried = batch is not None  # an operator may have taken all of it away meanwhile
                if batch is not None:
                    settled = await self.attempts.run(batch, transport, fresh, lambda: self._wanted(lane))
        except SpoolError as error:
            self._observer.trouble(
                "an attempt cannot be recorded in the queue; sending has stopped until it can be recorded", error
            )
            self.stall(True)
            tried = False
            self.supply.put_anew(Ready(ready.batch, ready.stream), self._clock.wall())  # a reload may have come between
        finally:
            if not tried:
                transport.give_back(len(ready.batch))
            if not opened:
                self.lanes.fresh.drop(ready)
            if self._pauses:
                self._pauses.probe_ended(lane.key, sender_domain_of(ready.batch.message, self._snapshot()))
            if settled is not None:
                lane.learn(taken=settled.taken, trouble=settled.trouble, limit=transport.concurrency)
                self.slots.learn(lane, Standing.TROUBLED if settled.trouble else Standing.SERVES)
                self._follow_up(settled)
                if self._pauses.mended:
                    self.tasks.spawn(self.supply.hasten_mended())
                if settled.due and moves != self.supply.moves:
                    self.tasks.spawn(self.supply.follow_choice())
            untaken = 0 if settled is not None and not self._gates else len(ready.batch) - (settled.accepted if settled else 0)
            self.freed(lane, transport, ready.stream, len(ready.batch), untaken, tried=tried)

    def take(self, lane: Lane, transport: Transport, stream: Stream, recipients: int) -> None:
        """Take the slot, and what the route's limits count, of a batch that goes out; its tokens are taken already."""
        lane.inflight += 1
        lane.low += stream.priority is Priority.LOW
        self.slots.take(transport, lane)
        if self._gates and self._gates.take(stream.site, recipients, self._clock.wall(), self._clock.monotonic()):
            self.counts.save()

    def freed(self, lane: Lane, transport: Transport, stream: Stream, recipients: int, untaken: int, *, tried: bool = True) -> None:
        """Take note of a slot that is free again; a lane that had to wait for one comes before the lane that gave it back."""
        lane.inflight -= 1
        lane.low -= stream.priority is Priority.LOW
        self.slots.give_back(transport, lane)
        if (kept := reserving(transport)) is not None:
            kept.ended(recipients)
        if self._gates:
            waiting, changed = self._gates.ended(stream.site, untaken, self._clock.wall(), tried=tried)
            if changed:
                self.counts.save()
            for key in waiting:
                other = self.lanes.get(key)
                if changed:
                    other.note(None, self._clock.wall())
                self.run(other)
        self._feed()
        self.run(lane)

    def stall(self, trouble: bool) -> None:
        """Stop starting attempts while the store is in trouble; ask it again after a while."""
        if trouble and not self._stalled:
            self._stalled = self.at_rest = True
            asyncio.get_running_loop().call_later(STALL, self.stall, False)
        elif not trouble and self._stalled:
            self._stalled, self.at_rest = False, self.closed or self._waiting
            self.run_all()

    def wait(self) -> None:
        """Start nothing until `begin`."""
        self._waiting = self.at_rest = True

    def begin(self) -> None:
        self._waiting, self.at_rest = False, self.closed or self._stalled
        self.run_all()

    def close(self) -> None:
        """Start nothing more."""
        self.closed = self.at_rest = self.supply.ended = True
        self.lanes.close()

    def _feed(self) -> None:
        """Give a slot to one that waits for it, if it may have it: those of each way out and standing in turn."""
        before = self.slots.taken
        for group in list(self._starved):
            while group in self._starved and self.slots.free_for(self.transport(group[0]), *group):
                waiting = self._starved.pop(group)
                first = next(iter(waiting))
                del waiting[first]
                if waiting:
                    self._starved[group] = waiting
                self.run(self.lanes.get(first))
                if self.slots.taken > before:
                    return

    def _start_ready(self, lane: Lane, now: float) -> list[tuple[Ready, float]]:
        """Start batches of `lane` while it may; return those whose sender's domain is paused, with the time it is until."""
        transport = self.transport(lane.key.transport)
        probing = bool(self._pauses) and self._pauses.must_probe(lane.key)
        limit = min(lane.inflight + 1 if probing else lane.window, transport.concurrency)
        postponed: list[tuple[Ready, float]] = []
        urgent_only = False  # what is not urgent has to wait for its pace; a quota's reserve lets urgent mail pass it
        while len(lane) and lane.inflight < limit:
            stream = lane.next(self._shut(lane, now, limit, urgent_only))
            if stream is None:
                break
            batch = lane.head(stream).batch
            until = self.supply.sender_waits(batch, now) if self._pauses else None
            if until is not None:
                ready = lane.pop(stream, served=False)
                self.lanes.fresh.drop(ready)
                postponed.append((ready, until))
                continue
            group = lane.key.transport, lane.standing
            if not self.slots.free_for(transport, *group):
                self._starved.setdefault(group, {})[lane.key] = None
                break
            if self._gates and (left := self._gates.left(stream.site, now)) < len(batch):
                self.lanes.fresh.drop(lane.cut(stream, int(left)))
                batch = lane.head(stream).batch
            wait = transport.pace(len(batch), self._clock.monotonic(), batch.priority)
            if wait > 0.0:
                if (kept := reserving(transport)) is not None and 1 <= (left := kept.unreserved(batch.priority)) < len(batch):
                    self.lanes.fresh.drop(lane.cut(stream, int(left)))
                    continue
                self.lanes.arm(lane, wait)
                if urgent_only or stream.priority is Priority.HIGH:
                    break
                urgent_only = True
                continue
            ready = lane.pop(stream)
            self.take(lane, transport, stream, len(batch))
            if self._pauses:
                self._pauses.probe_sender(lane.key.transport, sender_domain_of(batch.message, self._snapshot()), now)
            if probing:
                self._pauses.probe(lane.key)
            self.tasks.spawn(self.attempt(lane, ready, transport, opened=False))
        return postponed

    def _follow_up(self, settled: Settled) -> None:
        """Wake the lanes in which an attempt has left something to do."""
        for delivery in settled.batch.deliveries if settled.due else ():
            due = settled.due.get(delivery.id)
            if due is not None:
                lane = self.lanes.get(settled.batch.lane)
                lane.note(delivery.placement.stream, due)
                self.lanes.arm(lane, due - self._clock.wall())
        for report in settled.reports:
            for delivery in report.deliveries:
                if delivery.state is State.QUEUED:
                    self.stored(delivery.placement.lane, delivery.placement.stream)

    def _fail_over(self, lane: Lane, now: float) -> None:
        """Move what waits before a lane that has been paused for too long to the next transport of its route."""
        since = self._pauses.since(lane.key)
        if since is None:
            return
        moves = max(since + self.transport(lane.key.transport).failover_after, lane.moved_at + MOVE_EVERY)
        if now < moves:
            if moves < math.inf and (waits := now if len(lane) else lane.wake) < math.inf:
                self.lanes.arm(lane, max(moves, waits) - now)
            return
        for ready in self.lanes.empty(lane):
            for other in self.supply.put_anew(ready, now):
                if other is lane:
                    lane.moved_at = now
                else:
                    self.run(other)
        if lane.wake <= now:
            self.supply.refill(lane, now)
        if len(lane):
            self.lanes.arm(lane, MOVE_EVERY)
        elif now < lane.wake < math.inf:
            self.lanes.arm(lane, lane.wake - now)

    def _shut(self, lane: Lane, now: float, limit: int, urgent_only: bool) -> Callable[[Stream], bool] | None:
        """Return the question whether a stream of `lane` has to wait, though others may go; None where none has to."""
        gated = None
        if self._gates:
            gated = self._gates.closed(lane.key, now, self._clock.monotonic(), lambda wait: self.lanes.arm(lane, wait))
        if urgent_only:
            lowest = Priority.HIGH
        elif lane.low >= attempts_at_once(Priority.LOW, limit):
            lowest = Priority.NORMAL
        else:
            return gated
        return lambda stream: stream.priority > lowest or (gated is not None and gated(stream))

    def _wanted(self, lane: Lane) -> bool:
        """Tell whether anything waits for a slot that `lane` has, here or in the store."""
        return bool(len(lane) or self._starved or lane.claiming)
