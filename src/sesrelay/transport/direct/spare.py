"""The way out that no route names, for the third rung of a bounce's ladder: made when the first one comes to it.

What it rests on takes up to 10 MiB and a fifth of a second of each start, and most relays never want it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.outcome import Deferred, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Content, Transport
from sesrelay.transport.direct.by_domain import ByDomain


class SpareTransport(ByDomain):
    """Implements `sesrelay.seams.Transport`. `make` returns the real one, of `transport.direct.transport`.

    Units: `failover_after` seconds.
    """

    def __init__(self, name: str, failover_after: float, make: Callable[[], Transport]) -> None:
        self.name = name
        self.failover_after = failover_after
        self._make = make
        self._made: Transport | None = None

    def start(self) -> None:
        """Do nothing: most are never wanted."""

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        try:
            if self._made is None:
                # On a thread, so that clients are served meanwhile.
                await asyncio.to_thread(importlib.import_module, "sesrelay.transport.direct.transport")
            made = self._made = self._made or self._make()
        except Exception as error:  # a fault of ours, or of the machine's: whatever it is, the mail waits
            outcome = Deferred(Reply(451, "4.3.0", f"the transport could not be started: {error}"), Scope.MESSAGE)
            return batch.for_all(outcome)
        return await made.deliver(batch, content)
