"""What the engine needs of one configuration, swapped as a whole at a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.ladder import Ladder
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.routing import RouteRule, RoutingTable
from sesrelay.seams import Transport


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Units: `keep_delivered` seconds that the history of finished messages is kept."""

    hostname: str
    local: LocalMail
    routing: RoutingTable
    transports: Mapping[str, Transport]
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    keep_delivered: float = 7 * 86400.0
    ladder: Ladder = field(default_factory=Ladder)
    preflights: Mapping[str, Callable[[str], Reply | None]] = field(default_factory=dict)

    def preflight(self, rule: RouteRule, senders: Iterable[str]) -> Reply | None:
        """Return the refusal of one of `senders` that no transport of `rule` would take, or None."""
        if not self.preflights or not all(name in self.preflights for name in rule.transports):
            return None
        for sender in senders:
            refusals = [self.preflights[name](sender) for name in rule.transports]
            if all(refusals):
                return refusals[0] if refusals else None
        return None


NO_ROUTE = Reply(451, "4.3.5", "The configuration no longer has a route for this message")
