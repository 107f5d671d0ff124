"""Mail out: what the engine asks of a way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from sesrelay.mail.delivery import Batch, DeliveryId, Priority
from sesrelay.mail.filed import Large
from sesrelay.mail.outcome import Outcome
from sesrelay.mail.reply import Reply


class Content(Protocol):
    """The content of one message, fetched when it is asked for; `Filed` where it is large and `plain`. Units: `size` octets."""

    @property
    def size(self) -> int: ...
    async def read(self) -> Large: ...


class Interrupted(Exception):
    """What kept `Transport.deliver` from an outcome for all, its cause: a fault of ours, or that it was cancelled. `known`: what is
    certain nevertheless.
    """

    def __init__(self, known: Mapping[DeliveryId, Outcome]) -> None:
        super().__init__("the delivery was interrupted")
        self.known = known


class Transport(Protocol):
    """One way out. Made anew at each reload; what must outlive one (pace, connections) is handed over by `app`.

    `batch_limit`: deliveries in one call of `deliver`; `concurrency`: calls at once for one nexthop;
    `failover_after`: seconds of pause after which a route's next transport is tried.
    """

    @property
    def name(self) -> str: ...
    @property
    def batch_limit(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def failover_after(self) -> float: ...

    def start(self) -> None:
        """Begin in the background what takes time before the first delivery. Runs on: the loop."""

    def nexthop(self, recipient: str) -> str:
        """Name where mail for `recipient` goes next: a recipient's domain, a host, a region and key."""

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        """Take what `recipients` cost of the rate and return 0.0, or return the seconds to wait. `now`: monotonic.

        What is not of high priority may have to wait for a quota's sake, while what is goes on.
        """

    def give_back(self, recipients: int) -> None:
        """Return what `pace` took for an attempt that was never made."""

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        """Try once. One outcome for each delivery.

        Where it is cancelled before the message has left as a whole, an outcome says that.

        Raises: CancelledError where it may have left for all; Interrupted where that is so for some; that and anything else for a
        fault of ours: whoever has no outcome by any of these is in doubt.
        """

    async def close(self) -> None: ...


@runtime_checkable
class Preflight(Protocol):
    """A transport that knows of some senders beforehand that its next hop will not take them."""

    def refusal(self, sender: str) -> Reply | None:
        """Return what to answer mail from `sender`, or None where it may go or nobody knows. Never waits."""


@runtime_checkable
class Reserving(Protocol):
    """A transport that keeps what is left of a quota for mail of high priority. What `pace` let go counts from then on."""

    def ended(self, recipients: int) -> None:
        """Note that a batch to so many which `pace` let go is under way no longer, whether it was tried or not."""

    def unreserved(self, priority: Priority) -> float:
        """Return to how many more recipients mail of `priority` may go now beside that; infinite where nothing is kept from it."""

    def reserved_since(self) -> float | None:
        """Return since when other mail waits for that, in Unix seconds; None where none does."""
