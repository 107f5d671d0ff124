"""The way out for mail that the configuration names none for: it is held, and the operator told why.

Implements `seams.Transport`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sesrelay.delivery.snapshot import NO_ROUTE
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.outcome import Held, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.seams import Content

REMEDY = "Name a transport for this sender in the configuration, reload, then: sesrelay queue release ID"
ALIAS_REMEDY = "Name an alias under local.aliases, reload, then: sesrelay queue release ID (or with --via NAME as it is)"
_UNROUTED = Held(NO_ROUTE, "no_route", REMEDY)


def _unaliased(delivery: Delivery) -> Held:
    return Held(Reply(451, "4.3.5", f"No alias for {delivery.recipient.address}"), "no_alias", ALIAS_REMEDY)


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
        return {each.id: _unaliased(each) if each.recipient.hold else _UNROUTED for each in batch.deliveries}

    async def close(self) -> None:
        return None
