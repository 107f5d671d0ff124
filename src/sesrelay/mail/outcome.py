"""What became of one attempt for one delivery. Outcomes are values, never exceptions.

Source: RFC 5321 §4.2.1 (a 4yz is to be tried again, a 5yz is not).
"""

from __future__ import annotations

from enum import StrEnum

from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value


class Scope(StrEnum):
    """How far an obstacle reaches: what has to wait, or what has failed."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    RECIPIENT_DOMAIN = "recipient_domain"
    SENDER_DOMAIN = "sender_domain"
    TRANSPORT = "transport"
    NEXTHOP = "nexthop"


class PauseReason(StrEnum):
    """Why part of the queue waits; the values of the metric label `reason`."""

    CREDENTIALS = "credentials"
    QUOTA = "quota"
    THROTTLED = "throttled"
    SUSPENDED = "suspended"
    CONFIGURATION = "configuration"
    CLOCK = "clock"
    UNAVAILABLE = "unavailable"
    OPERATOR = "operator"


@value(frozen=True, slots=True)
class Trail:
    """What an attempt leaves for `trace`: the TLS it ran under, a receipt of each header change, and the host that answered."""

    tls: str | None = None
    changes: tuple[str, ...] = ()
    host: str | None = None


NO_TRAIL = Trail()


@value(frozen=True, slots=True)
class Delivered:
    """The next hop took it. `dsn_passed_on`: it also took over the duty to report (RFC 3461 §5.2.2)."""

    reply: Reply
    remote_id: str | None = None
    dsn_passed_on: bool = False
    trail: Trail = NO_TRAIL


@value(frozen=True, slots=True)
class Deferred:
    """Not now. A scope wider than the message pauses that much of the queue and costs no attempt.

    `reason` and `remedy` are for the operator, and belong to such wider scopes; with the scope of a message, a reason says that
    the message waits by itself for what is not its own fault, and is not bounced for it. `retry_after` (seconds) is the
    pause that the next hop asked for or that its answer calls for; None leaves it to policy, and 0, with such a wider scope, says
    that nothing was tried: it goes again at once, whatever its age, and nothing is paused. `tolerance`: so many of these in a row
    before it pauses more than the message; until then only the message waits. `ambiguous`: the answer was lost, and it may have
    been sent.
    """

    reply: Reply
    scope: Scope = Scope.RECIPIENT
    reason: PauseReason | None = None
    remedy: str = ""
    retry_after: float | None = None
    ambiguous: bool = False
    trail: Trail = NO_TRAIL
    tolerance: int = 1


@value(frozen=True, slots=True)
class Failed:
    """Refused for good, for this recipient or for the whole message."""

    reply: Reply
    scope: Scope = Scope.RECIPIENT
    remedy: str = ""
    trail: Trail = NO_TRAIL


@value(frozen=True, slots=True)
class Held:
    """Neither sent nor refused: it waits for the operator, who reads `reason` and `remedy`."""

    reply: Reply
    reason: str
    remedy: str = ""
    trail: Trail = NO_TRAIL


Outcome = Delivered | Deferred | Failed | Held
