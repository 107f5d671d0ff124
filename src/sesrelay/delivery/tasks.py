"""The work that a scheduler has under way, held so that none is lost or fails unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sesrelay.seams import Observer

LAST_WORDS = 2.0  # seconds for what was cut to say what is certain nevertheless; a store in trouble does not listen


class Tasks:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, grace: float) -> int:
        """Give all of it `grace` seconds, then cut the rest; return how much of that ended without a result."""
        pending: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, pending = await asyncio.wait(set(self._tasks), timeout=grace)
        for task in pending:
            task.cancel()
        late = (await asyncio.wait(pending, timeout=LAST_WORDS))[1] if pending else pending
        for task in late:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return sum(task.cancelled() for task in pending)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._observer.trouble("a task of the scheduler failed", error)
