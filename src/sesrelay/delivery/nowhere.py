"""The way out for mail that the configuration names none for: it is held, and the operator told why.

Implements `seams.Transport`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sesrelay.delivery.snapshot import NO_ROUTE
from sesrelay.mail.delivery import Batch, DeliveryId, Priority
from sesrelay.mail.outcome import Held, Outcome
from sesrelay.seams import Content

REMEDY = "Configure a route for this sender, reload, then run: sesrelay queue release ID"


class Nowhere:
    name = ""
    batch_limit = 1000
    concurrency = 1
    failover_after = math.inf

    def start(self) -> None:
        """Do nothing: nothing leaves."""

    def nexthop(self, recipient: str) -> str:
        return ""

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        return None

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        return batch.for_all(Held(NO_ROUTE, "no_route", REMEDY))

    async def close(self) -> None:
        return None
