"""Memory for the contents of attempts: a large one waits until there is room for it beside mail that comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from sesrelay.policy.budget import COPIES_OUT, ByteBudget

LARGE = 256 * 1024
"""Octets above which content is read back when it is sent, and counted. What is smaller is bounded by the slots."""

_FREE = nullcontext()


class Room:
    """Taken before the attempt is on record, so that a crash finds in doubt only what was on its way."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget

    def taken(self, size: int) -> AbstractAsyncContextManager[None]:
        """Hold what sending a message of `size` octets needs. Waits for its turn."""
        return _FREE if size <= LARGE else self._taken(size)

    @asynccontextmanager
    async def _taken(self, size: int) -> AsyncIterator[None]:
        octets = COPIES_OUT * size
        turn = asyncio.get_running_loop().create_future()

        def granted() -> bool:
            if not turn.done():
                turn.set_result(None)
                return True
            return False

        self._budget.take_outgoing(octets, granted)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._budget.outgoing.give(octets)
            raise
        try:
            yield
        finally:
            self._budget.outgoing.give(octets)
