"""What every writer promises to who asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from sesrelay.spool.bulk import Operation
from sesrelay.spool.tally import Counts
from sesrelay.spool.transaction import Transaction

T = TypeVar("T")


class Writer(Protocol):
    """Takes operations on the event loop. An operation may run more than once, each time after all that it did was undone.

    Invariant: what is given in an operation, and what it returns, can be pickled.
    """

    def submit(self, run: Callable[[Transaction], T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        """Queue an operation. Units: `octets` that it weighs.

        `patient`: nobody outside waits for it, so it may wait LINGER for others to share its sync with. Raises: SpoolError
        """

    def perform(self, operation: Operation[T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        """Queue an operation that can go with others of its kind. See `submit`. Raises: SpoolError"""

    def counts(self) -> Counts:
        """Return how much is open, as it was last committed."""

    async def close(self) -> None:
        """Finish what waits, write the log home, close."""
