"""By which rules a session's mail is taken or refused: those that it began with, whatever has been loaded since."""

from __future__ import annotations

from dataclasses import dataclass

from sesrelay.policy.routing import RoutingTable
from sesrelay.policy.senders import NOBODY_NAMED, SenderRules


@dataclass(frozen=True, slots=True)
class SessionRules:
    """`senders`: who may send as whom; `routing`: which senders have no route, None: by the routes in force."""

    senders: SenderRules = NOBODY_NAMED
    routing: RoutingTable | None = None


NO_RULES = SessionRules()
