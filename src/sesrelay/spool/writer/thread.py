"""The writer on a thread of this process.

No timer: what gathered during the last sync is the next group.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sesrelay.seams import SpoolError
from sesrelay.spool.bulk import Operation
from sesrelay.spool.errors import as_spool_error
from sesrelay.spool.tally import Counts
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer.committing import Committer
from sesrelay.spool.writer.jobs import GROUP_MAX, GROUP_OCTETS, IDLE, LINGER, Job

T = TypeVar("T")


class _Waiting(Job):
    """A job, and the future of who waits for it."""

    __slots__ = ("future", "loop", "octets", "patient")

    def __init__(self, run: Callable[[Transaction], Any], operation: Operation[Any] | None, octets: int, patient: bool) -> None:
        super().__init__(run, operation)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.octets = octets
        self.patient = patient


class ThreadWriter:
    """Implements `promise.Writer`, for one event loop after the other."""

    def __init__(self, committer: Committer, monotonic: Callable[[], float]) -> None:
        self.committer = committer
        self._monotonic = monotonic
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="spool-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Transaction], T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        return self._put(_Waiting(run, None, octets, patient))

    def perform(self, operation: Operation[T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        return self._put(_Waiting(operation.alone, operation, octets, patient))

    def counts(self) -> Counts:
        return self.committer.tally.open

    def _put(self, job: _Waiting) -> asyncio.Future[Any]:
        if self._closing:
            raise SpoolError("the store is closed")
        self._queue.put(job)
        return job.future

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- on the thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        committer, running = self.committer, True
        while running:
            try:
                job = self._queue.get(timeout=IDLE if committer.restless else None)
            except Empty:
                committer.tidy(lambda: not self._queue.empty())
                continue
            group, running = self._gather(job)
            if group:
                committer.commit(group)
                _answer(group)
            committer.relieve()
        committer.shut()

    def _gather(self, job: _Waiting | None) -> tuple[list[_Waiting], bool]:
        """Return what waits, from `job` on, to be committed together, and whether there is more to come.

        What gathered during the last sync is the next group; only where all of it is patient is anything waited for.
        """
        group: list[_Waiting] = []
        octets = 0
        hurried = False
        until = self._monotonic() + LINGER
        while job is not None:
            group.append(job)
            octets += job.octets
            hurried = hurried or not job.patient
            if len(group) >= GROUP_MAX or octets >= GROUP_OCTETS:
                return group, True
            try:
                job = self._queue.get_nowait() if hurried else self._queue.get(timeout=max(until - self._monotonic(), 0.0))
            except Empty:
                return group, True
        return group, False


def _answer(group: list[_Waiting]) -> None:
    """Wake each loop once, however many wait there."""
    loops: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
    for job in group:
        loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:
            continue  # that loop is closed, and nobody waits there any more


def _resolve(jobs: list[_Waiting]) -> None:
    for job in jobs:
        future = job.future
        if future.done():
            continue  # cancelled: the caller has gone
        if job.error is None:
            future.set_result(job.result)
        else:
            future.set_exception(as_spool_error(job.error))
