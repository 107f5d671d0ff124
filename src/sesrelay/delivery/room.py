"""Memory for the contents of attempts: a large one that must be held waits until there is room for it beside mail that comes in.

What can leave as it stands goes from its file to the socket a piece at a time, and needs no more than those pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from sesrelay.delivery.lane import Ready
from sesrelay.mail.filed import Large
from sesrelay.policy.budget import COPIES_OUT, ByteBudget
from sesrelay.seams import Spool

LARGE = 256 * 1024
"""Octets above which content is read back when it is sent, and counted. What is smaller is bounded by the slots."""
STREAMED = 1024 * 1024
"""Octets above which content stays in its file where it can; below, the looks at the file cost more than the memory does."""
PIECES = 512 * 1024
"""Octets that count for content in its file: pieces that are read, made ready, and wait for a socket."""


class Room:
    """Taken before the attempt is on record, so that a crash finds in doubt only what was on its way."""

    def __init__(self, budget: ByteBudget, spool: Spool) -> None:
        self._budget = budget
        self._spool = spool

    def content(self, ready: Ready) -> AbstractAsyncContextManager[Large | None]:
        """Hold what sending a batch needs, and give its content where it is at hand. Waits for its turn."""
        return nullcontext(ready.content) if ready.batch.message.size <= LARGE else self._content(ready)

    @asynccontextmanager
    async def _content(self, ready: Ready) -> AsyncIterator[Large | None]:
        message, filed = ready.batch.message, None
        if message.size > STREAMED and message.report is None:  # a report may be made anew of itself, and is whole then
            filed = await self._spool.filed(message.id)
            if filed is not None and len(filed) != message.size:
                filed = None  # cut off: whoever reads it whole says so
        async with self._taken(COPIES_OUT * message.size if filed is None else PIECES):
            yield ready.content if filed is None else filed

    @asynccontextmanager
    async def _taken(self, octets: int) -> AsyncIterator[None]:
        """Hold so much of the budget. Waits for its turn."""
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
