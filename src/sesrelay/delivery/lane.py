"""The queue in memory before one nexthop: a bounded cache of what the store holds."""

from __future__ import annotations

import math
from asyncio import TimerHandle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from sesrelay.mail.delivery import Batch, LaneKey, Priority
from sesrelay.mail.lineends import Canonical
from sesrelay.policy.window import FIRST, next_window

ROOM = 500  # batches a lane keeps in memory; beyond that they stay in the store
LOW_WATER = 100  # batches below which a lane is filled again


@dataclass(frozen=True, slots=True)
class Ready:
    """A claimed batch, and the content where it came fresh from acceptance and memory had room for it."""

    batch: Batch
    content: Canonical | None = None


@dataclass(slots=True)
class Lane:
    """Units: `wake` Unix seconds of the earliest due time known in the store, infinite where there is none; `window`
    attempts at once, growing as the nexthop takes mail and shrinking at its troubles; `moved_at` when what waits was last offered another way out.
    """

    key: LaneKey
    inflight: int = 0
    window: int = FIRST
    moved_at: float = -math.inf
    wake: float = math.inf
    claiming: bool = False
    timer: TimerHandle | None = None
    _queues: tuple[deque[Ready], ...] = field(default_factory=lambda: tuple(deque() for _ in Priority))
    _waiting: int = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[Ready]:
        return (ready for queue in self._queues for ready in queue)

    def put(self, ready: Ready) -> None:
        self._queues[ready.batch.deliveries[0].placement.priority].append(ready)
        self._waiting += 1

    def put_back(self, ready: Ready) -> None:
        """Return to the front what could not be tried."""
        self._queues[ready.batch.deliveries[0].placement.priority].appendleft(ready)
        self._waiting += 1

    def peek(self) -> Ready:
        return next(queue[0] for queue in self._queues if queue)

    def pop(self) -> Ready:
        self._waiting -= 1
        return next(queue for queue in self._queues if queue).popleft()

    def empty(self) -> list[Ready]:
        """Take out everything that waits."""
        everything = list(self)
        for queue in self._queues:
            queue.clear()
        self._waiting = 0
        return everything

    def learn(self, *, taken: bool, trouble: bool, limit: int) -> None:
        """Take note of how an attempt ended."""
        self.window = next_window(self.window, taken=taken, trouble=trouble, limit=limit)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self.inflight or self.claiming) and self.wake == math.inf

    @property
    def has_room(self) -> bool:
        return self._waiting < ROOM

    @property
    def wants_refill(self) -> bool:
        return self._waiting < LOW_WATER and not self.claiming
