"""The transport that sends nothing: mail waits for the operator."""

from __future__ import annotations

from collections.abc import Mapping

from sesrelay.mail.delivery import Batch, DeliveryId, Priority
from sesrelay.mail.outcome import Held, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.policy.verdict import KEPT
from sesrelay.seams import Content


class HoldTransport:
    """Implements `sesrelay.seams.Transport`."""

    batch_limit = 1000
    concurrency = 1
    failover_after = float("inf")

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> None:
        """Do nothing: nothing leaves."""

    def nexthop(self, recipient: str) -> str:
        return "hold"

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: nothing was taken."""

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        held = Held(
            Reply(450, "4.7.0", f"Held: transport {self.name} keeps mail until an operator releases it"),
            KEPT,
            "set a route with another transport for the sender's domain, then run: sesrelay queue release ID",
        )
        return batch.for_all(held)

    async def close(self) -> None:
        """Do nothing: nothing is open."""
