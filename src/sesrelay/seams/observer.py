"""What is told of all that happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId
from sesrelay.mail.envelope import Message, Origin
from sesrelay.mail.outcome import Outcome, PauseReason
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import Verdict


@value(frozen=True, slots=True)
class Pause:
    """Part of the queue that waits. `nexthop` None: the whole transport. `since`, `until`: Unix seconds.

    `domain`: the sender's or recipient's domain that the pause is about, where it is about one. `cap`: the limit of
    ours that was reached, by the name of its key; `route`: where that is a route's.
    """

    transport: str
    nexthop: str | None
    reason: PauseReason
    since: float
    until: float
    remedy: str = ""
    domain: str | None = None
    route: str | None = None
    cap: str | None = None


class Observer(Protocol):
    """One method a mail event, so that log and metrics cannot drift apart. Raises nothing, never waits."""

    def connected(self, listener: str) -> None: ...
    def disconnected(self, listener: str) -> None: ...

    def accepted(self, message: Message, seconds: float) -> None:
        """A message is durable. Units: `seconds` from the end of DATA to the reply."""

    def refused(self, origin: Origin, reply: Reply, reason: str) -> None:
        """A command or message was refused; `reason` is one word for the metric: policy, address, size, local, …"""

    def attempted(self, batch: Batch, outcomes: Mapping[DeliveryId, Outcome], seconds: float, waited: float | None) -> None:
        """An attempt ended. `waited`: seconds from acceptance to this attempt where it was the first, else None."""

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """A delivery's verdict is durable."""

    def reported(self, original: Message, report: Message) -> None:
        """A DSN about `original` is durable."""

    def paused(self, pause: Pause) -> None: ...
    def resumed(self, pause: Pause) -> None: ...

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        """The account's figures as last fetched; `max_24h` -1: unlimited."""

    def account(self, transport: str, standing: AccountStanding) -> None:
        """How the account behind a transport stands, as it was just told."""

    def reloaded(self, ok: bool, detail: str) -> None: ...

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        """Something of ours went wrong; `what` says it in a few words."""

    def notice(self, what: str, **facts: object) -> None:
        """Something worth a line: started, listening, draining, stopped."""
