"""The transport that takes everything and keeps nothing, for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Mapping

from sesrelay.mail.delivery import Batch, DeliveryId, Priority
from sesrelay.mail.outcome import Delivered, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.seams import Content

DISCARDED = Delivered(Reply(250, "2.0.0", "discarded"))


class DiscardTransport:
    """Implements `sesrelay.seams.Transport`."""

    batch_limit = 1000
    concurrency = 10
    failover_after = float("inf")

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> None:
        """Do nothing: nothing leaves."""

    def nexthop(self, recipient: str) -> str:
        return "discard"

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: nothing was taken."""

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        return batch.for_all(DISCARDED)

    async def close(self) -> None:
        """Do nothing: nothing is open."""
