"""Messages folded into digests, as who asks for it sees them; `folding` is what the writer does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sesrelay.seams import SpoolError
from sesrelay.spool import folding
from sesrelay.spool.records import Packed
from sesrelay.spool.writer.promise import Writer

DIGESTS_MAX = 1_000  # digests whose number is remembered


class Digests:
    """Folds messages one after the other without waiting for any to be stored, by knowing how many each digest tells of."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._numbers: dict[int, int] = {}
        """Of how many messages each tells once all that was asked for is stored."""

    async def fold(self, folded: Packed, digest: int, telling: Callable[[int], Packed]) -> int:
        """Store `folded` as ended and have `digest` tell of it; return of how many it tells now. Raises: SpoolError"""
        while True:
            if digest not in self._numbers:
                stored = await self._writer.submit(partial(folding.count, digest=digest))
                self._numbers.setdefault(digest, stored)
                while len(self._numbers) > DIGESTS_MAX:
                    del self._numbers[next(iter(self._numbers))]
            self._numbers[digest] = number = self._numbers[digest] + 1
            try:
                await self._writer.submit(partial(folding.fold, folded=folded, told=telling(number), number=number))
            except folding.Miscounted:  # what was to come before it could not be stored
                self._numbers.pop(digest, None)
            except SpoolError:
                self._numbers.pop(digest, None)
                raise
            else:
                return number
