"""The queue in memory before one nexthop: a bounded cache of what the store holds, apart by priority and site.

Invariant: a stream (a priority of a site) has up to its share of the room, however much others have: what is over its
share makes way.
"""

from __future__ import annotations

import math
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from sesrelay.mail.delivery import Batch, Delivery, LaneKey, Priority, Stream
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.value import value
from sesrelay.policy.concurrency import FIRST, Standing, next_window
from sesrelay.policy.fairness import Rounds, Turns

ROOM = 500  # batches a lane keeps in memory; beyond that they stay in the store
LOW_WATER = 5  # what part of its share is left of a stream when it is filled again


@value(frozen=True, slots=True, eq=False)
class Ready:
    """A claimed batch, and the content where it came fresh from acceptance and memory had room for it.

    `stream`: where it waits by the configuration in force; the store may still have it where it was before.
    """

    batch: Batch
    stream: Stream
    content: Canonical | None = None


@dataclass(slots=True)
class Lane:
    """The mail in memory that goes to one nexthop, and how the attempts there fare.

    Units: `low` how many of those in flight are of low priority; `window` attempts at once, which grows as the nexthop takes
    mail and shrinks at its troubles; `moved_at` when what waits was last offered another way out and not all of it went.
    `wakes`: Unix seconds of the earliest due time known in the store, by stream, None standing for one that is not known;
    `wake` the least of them, infinite where there is none. `turn`: the site that was claimed for last. `guests`: streams of
    other lanes that are to go from here, and for which there was no room.
    """

    key: LaneKey
    standing: Standing = Standing.UNKNOWN
    inflight: int = 0
    low: int = 0
    window: int = FIRST
    moved_at: float = -math.inf
    claiming: bool = False
    timer: TimerHandle | None = None
    wakes: dict[Stream | None, float] = field(default_factory=dict)
    wake: float = math.inf
    turn: str = ""
    guests: dict[LaneKey, set[Stream]] = field(default_factory=dict)
    _queues: dict[Stream, deque[Ready]] = field(default_factory=dict)
    _rounds: tuple[Rounds, ...] = field(default_factory=lambda: tuple(Rounds() for _ in Priority))
    _turns: Turns = field(default_factory=Turns)
    _waiting: int = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[Ready]:
        return (ready for _, queue in sorted(self._queues.items()) for ready in queue)

    # --- what waits in memory ---

    def put(self, ready: Ready) -> Ready | None:
        """Let it wait here; return what has to make way for it, if anything."""
        self.keep(ready)
        return self._give_way() if self._waiting > ROOM else None

    def keep(self, ready: Ready) -> None:
        """Let it wait here, whether there is room or not."""
        self._queue(ready.stream).append(ready)
        self._waiting += 1

    def put_back(self, ready: Ready) -> None:
        """Return to the front what could not be tried."""
        self._queue(ready.stream).appendleft(ready)
        self._waiting += 1

    def next(self, closed: Callable[[Stream], bool] | None = None) -> Stream | None:
        """Return the stream whose first batch goes next; None where nothing waits that is not `closed`."""
        if len(self._queues) == 1:
            (stream,) = self._queues
            return None if closed is not None and closed(stream) else stream
        for priority in self._turns.order(self._priorities()):
            site = self._rounds[priority].next(
                lambda site, priority=priority: len(self._queues[Stream(priority, site)][0].batch),  # type: ignore[misc]
                None if closed is None else lambda site, priority=priority: closed(Stream(priority, site)),  # type: ignore[misc]
            )
            if site is not None:
                return Stream(priority, site)
        return None

    def head(self, stream: Stream) -> Ready:
        return self._queues[stream][0]

    def pop(self, stream: Stream, *, served: bool = True) -> Ready:
        """Take out the first of `stream`. `served`: it goes out, and the others have their turn before the next of it."""
        queue = self._queues[stream]
        ready = queue.popleft()
        self._waiting -= 1
        if served and len(self._queues) > 1:
            self._turns.served(stream.priority, self._priorities())
            self._rounds[stream.priority].served(stream.site, len(ready.batch))
        if not queue:
            self._forget(stream)
        return ready

    def cut(self, stream: Stream, deliveries: int) -> Ready:
        """Cut the first of `stream` so that it is no longer than that; return what stood there."""
        whole = self.pop(stream, served=False)
        batch = whole.batch
        self.put_back(Ready(Batch(batch.lane, batch.deliveries[deliveries:]), stream))
        self.put_back(Ready(Batch(batch.lane, batch.deliveries[:deliveries]), stream))
        return whole

    def take(self, stream: Stream) -> list[Ready]:
        """Take out all that waits of one stream."""
        queue = self._queues.get(stream)
        if not queue:
            return []
        self._waiting -= len(queue)
        self._forget(stream)
        return list(queue)

    def empty(self) -> list[Ready]:
        """Take out everything that waits."""
        everything = list(self)
        for stream in list(self._queues):
            self._forget(stream)
        self._waiting = 0
        return everything

    def learn(self, *, taken: bool, trouble: bool, limit: int) -> None:
        """Take note of how an attempt ended."""
        self.window = next_window(self.window, taken=taken, trouble=trouble, limit=limit)

    def streams(self) -> list[Stream]:
        """Return those that have anything in memory."""
        return list(self._queues)

    def has_room(self, stream: Stream) -> bool:
        """Tell whether another batch of `stream` may wait here, if need be in the place of one that is over its share."""
        return self._waiting < ROOM or len(self._queues.get(stream, ())) < self.share(stream)

    def turn_away(self, key: LaneKey, streams: Iterable[Stream]) -> None:
        """Take note that there is no room here for what the lane `key` has of `streams`."""
        self.guests.setdefault(key, set()).update(streams)

    def has_room_for_guests(self) -> bool:
        return bool(self.guests) and self._waiting <= ROOM // LOW_WATER

    # --- what the store has ---

    def note(self, stream: Stream | None, due: float) -> None:
        """Take note that the store has something of `stream`, or of one that is not known, due then."""
        if due < self.wakes.get(stream, math.inf):
            self.wakes[stream] = due
            self.wake = min(self.wake, due)

    def put_off(self, stream: Stream, until: float) -> None:
        """Do not ask the store for `stream` before then."""
        self.wakes[stream] = until
        self.wake = min(self.wakes.values())

    def rest(self, streams: Iterable[Stream], until: float) -> None:
        """Leave what the store has of `streams` there until then, where it has any that is due sooner."""
        for stream in streams:
            if self.wakes.get(stream, until) < until:
                self.put_off(stream, until)

    def wanted(self, now: float) -> dict[Stream | None, int]:
        """Return for which streams the store is to be asked now, and for how many of each."""
        wanted: dict[Stream | None, int] = {}
        for stream, due in self.wakes.items():
            if due <= now:
                share, stock = (ROOM - self._waiting, 0) if stream is None else (self.share(stream), self.stock(stream))
                if stock < self._low_water(share):
                    wanted[stream] = max(share - stock, 1)
        return wanted

    def asking(self, passed_over: Collection[Stream | None]) -> dict[Stream | None, float]:
        """Forget when all but those are due, since the store is asked for them; return it, to be noted should that fail."""
        forgotten = {stream: due for stream, due in self.wakes.items() if stream not in passed_over}
        for stream in forgotten:
            del self.wakes[stream]
        self.wake = min(self.wakes.values(), default=math.inf)
        return forgotten

    def well_stocked(self) -> set[Stream | None]:
        """Return the streams that need nothing from the store for now."""
        return {stream for stream in self._queues if self.stock(stream) >= self._low_water(self.share(stream))}

    def next_wake(self, now: float) -> float:
        """Return the earliest due time that is still to come; infinite where there is none."""
        return self.wake if self.wake > now else min((due for due in self.wakes.values() if due > now), default=math.inf)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self.inflight or self.claiming) and self.wake == math.inf

    def stock(self, stream: Stream) -> int:
        return len(self._queues.get(stream, ()))

    def share(self, stream: Stream) -> int:
        """Return how many batches of `stream` may wait here when all that could be here wants room."""
        others = len(self._queues.keys() | self.wakes.keys() | {stream}) - (None in self.wakes)
        return max(ROOM // others, 1)

    @staticmethod
    def _low_water(share: int) -> int:
        return max(share // LOW_WATER, 1)

    def _priorities(self) -> list[Priority]:
        return [priority for priority in Priority if self._rounds[priority]]

    def _queue(self, stream: Stream) -> deque[Ready]:
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = deque()
            self._rounds[stream.priority].join(stream.site)
        return queue

    def _forget(self, stream: Stream) -> None:
        del self._queues[stream]
        self._rounds[stream.priority].leave(stream.site)

    def _give_way(self) -> Ready:
        """Take out the last of the lowest priority that is over its share."""
        share = max(ROOM // len(self._queues), 1)
        over = [stream for stream, queue in self._queues.items() if len(queue) > share] or list(self._queues)
        victim = max(over, key=lambda stream: (stream.priority, len(self._queues[stream])))
        queue = self._queues[victim]
        ready = queue.pop()
        self._waiting -= 1
        if not queue:
            self._forget(victim)
        return ready


def home_of(delivery: Delivery) -> tuple[LaneKey, Stream]:
    """Return where the store has a delivery that was claimed."""
    return delivery.placement.lane, delivery.placement.stream
