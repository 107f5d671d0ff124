"""What the engine needs of one configuration, swapped as a whole at a reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.routing import RoutingTable
from sesrelay.policy.senders import SenderRules
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
    senders: SenderRules = field(default_factory=SenderRules)


NO_ROUTE = Reply(451, "4.3.5", "The configuration has no way out for this message any more")
