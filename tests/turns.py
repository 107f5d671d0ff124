"""Turns of an event loop, counted: what must not be done all in one."""

from __future__ import annotations

import asyncio


class Turns:
    """Counts the turns of the running loop while in its `with`."""

    def __enter__(self) -> Turns:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)
        return self

    def __exit__(self, *_: object) -> None:
        self._next.cancel()

    def _turn(self) -> None:
        self.now += 1
        self._next = self._loop.call_soon(self._turn)
