"""What an SMTP host's answer means: the whole policy of failure of `smtp` and `direct`, by stage and first digit.

Invariant: a relay that we were told to use never makes a message fail by how it treats *us*: greeting, EHLO, TLS and
AUTH defer, with a scope that pauses the lane and costs no attempt. A recipient's own host may refuse us for good.
Invariant: once the final dot may have left, no answer means doubt, never a plain deferral.

Source: RFC 5321 §4.2.1, §4.5.4.1, §5.1; RFC 4954 §6; Postfix `smtp_trouble.c` is the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value


class Stage(IntEnum):
    """How far a connection had come. DOT: the final dot may have left."""

    CONNECT = 0
    GREETING = 1
    HELLO = 2
    TLS = 3
    AUTH = 4
    MAIL = 5
    RCPT = 6
    DATA = 7
    CONTENT = 8
    DOT = 9


@value(frozen=True, slots=True)
class Answer:
    """What the host said at `stage`, or in our words what came instead: `lost` where the connection went.

    `ours`: our own refusal to hand this host what it says it cannot take. `reason` and `remedy` where they are known.
    """

    stage: Stage
    reply: Reply
    lost: bool = False
    ours: bool = False
    reason: PauseReason | None = None
    remedy: str = ""

    @property
    def service_gone(self) -> bool:
        """The host went away, or said that it will (421)."""
        return self.lost or self.reply.code == 421


_WANTS_AUTH = frozenset({530, 534, 535, 538})  # RFC 4954 §6
_REMOTE_IDS = (
    re.compile(r"\bqueued as ([0-9A-Za-z._-]+)", re.I),  # Postfix, sesrelay, many
    re.compile(r"\bid=([0-9A-Za-z._-]+)", re.I),  # Exim
    re.compile(r"\AOk:? ([0-9A-Za-z-]{16,})\Z", re.I),  # SES
)


def remote_id(reply: Reply) -> str | None:
    """Return the id under which the host keeps the message, where its reply has one."""
    for pattern in _REMOTE_IDS:
        found = pattern.search(reply.text)
        if found:
            return found[1]
    return None


def from_relay(answer: Answer, host: str, trail: Trail, *, dsn_passed_on: bool = False) -> Outcome:
    """Return what the answer of a relay that the configuration names means for a delivery."""
    certain = _certain(answer, trail, dsn_passed_on)
    if certain is not None:
        return certain
    reply = answer.reply
    if answer.lost and answer.stage is Stage.CONTENT:
        # It may be this message that the host cannot bear; the others should not wait behind it.
        return Deferred(reply, Scope.MESSAGE, trail=trail)
    reason, remedy = _relay_trouble(answer, host)
    if reason is not None:
        return Deferred(reply, Scope.NEXTHOP, answer.reason or reason, answer.remedy or remedy, trail=trail)
    return _transaction(answer, trail)


def from_mail_host(answer: Answer, trail: Trail, *, dsn_passed_on: bool = False) -> Outcome:
    """Return what the answer of one of a recipient domain's own hosts means, were it the only one."""
    certain = _certain(answer, trail, dsn_passed_on)
    if certain is not None:
        return certain
    reply = answer.reply
    if answer.lost and answer.stage is Stage.CONTENT:
        return Deferred(reply, Scope.MESSAGE, trail=trail)
    if answer.service_gone or answer.stage in (Stage.CONNECT, Stage.TLS, Stage.AUTH):
        return Deferred(reply, Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE, answer.remedy, trail=trail)
    if answer.stage in (Stage.GREETING, Stage.HELLO):
        if reply.permanent:
            return Failed(reply, Scope.RECIPIENT_DOMAIN, trail=trail)
        return Deferred(reply, Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE, trail=trail)
    if trail.tls is None and _wants_tls(reply):  # that it did not come about just now, or that we were told not to, is no refusal
        remedy = (
            "find out why TLS with this host fails (openssl s_client -starttls smtp), or whether tls or tls_policy is set to none"
        )
        return Deferred(reply, Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE, remedy, trail=trail)
    return _transaction(answer, trail)


_WIDTH = {Scope.RECIPIENT: 0, Scope.MESSAGE: 1, Scope.RECIPIENT_DOMAIN: 2}


def agree(outcomes: Iterable[Outcome]) -> Outcome:
    """Return what several hosts of a domain, of which none took the message, mean together: failed only if all say so.

    Among deferrals the narrowest scope wins: that host was reached, and spoke of less than the whole domain.
    """
    said = list(outcomes)
    deferred = [outcome for outcome in said if not isinstance(outcome, Failed)]
    if not deferred:
        return said[0]
    return min(deferred, key=lambda outcome: _WIDTH.get(outcome.scope, 3) if isinstance(outcome, Deferred) else 3)


_TELLING = (PauseReason.CREDENTIALS, PauseReason.CONFIGURATION, PauseReason.SUSPENDED, PauseReason.QUOTA, PauseReason.THROTTLED)


def most_telling(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the one that an operator should read, of the outcomes of several relays that all did not serve."""
    return min(
        outcomes,
        key=lambda outcome: (
            _TELLING.index(outcome.reason) if isinstance(outcome, Deferred) and outcome.reason in _TELLING else len(_TELLING)
        ),
    )


def _certain(answer: Answer, trail: Trail, dsn_passed_on: bool) -> Outcome | None:
    """Return the outcome where it does not matter whose host it is."""
    if answer.stage is Stage.DOT:
        if answer.lost:
            return Deferred(answer.reply, Scope.MESSAGE, ambiguous=True, trail=trail)
        if answer.reply.positive:
            return Delivered(answer.reply, remote_id(answer.reply), dsn_passed_on, trail)
    if answer.ours:
        return Failed(answer.reply, Scope.RECIPIENT if answer.stage is Stage.RCPT else Scope.MESSAGE, answer.remedy, trail)
    return None


def _relay_trouble(answer: Answer, host: str) -> tuple[PauseReason | None, str]:
    """Return why the relay as a whole does not serve, and what would mend it; None where this message alone is meant."""
    if answer.reason is not None:
        return answer.reason, answer.remedy
    if answer.service_gone or answer.stage in (Stage.CONNECT, Stage.TLS):
        return PauseReason.UNAVAILABLE, f"check that {host} is running and can be reached from this host"
    if answer.stage in (Stage.GREETING, Stage.HELLO):
        if answer.reply.permanent:
            return (
                PauseReason.CONFIGURATION,
                f"{host} refuses this client: ask its administrator whether this client may relay there, and with which EHLO name",
            )
        return PauseReason.UNAVAILABLE, f"{host} is not ready; the relay tries again by itself"
    if _wants_tls(answer.reply):
        return PauseReason.CONFIGURATION, f"{host} requires TLS: set tls: required"
    if answer.reply.code in _WANTS_AUTH or (answer.stage is Stage.AUTH and answer.reply.permanent):
        return PauseReason.CREDENTIALS, f"{host} refuses the login: correct username and password (or the token), then reload"
    if answer.stage is Stage.AUTH:
        return PauseReason.UNAVAILABLE, f"{host} cannot check the login at the moment; the relay tries again by itself"
    return None, ""


def _wants_tls(reply: Reply) -> bool:
    return reply.code in _WANTS_AUTH and "starttls" in reply.text.lower()


def _transaction(answer: Answer, trail: Trail) -> Outcome:
    scope = Scope.RECIPIENT if answer.stage is Stage.RCPT else Scope.MESSAGE
    if answer.reply.permanent:
        return Failed(answer.reply, scope, answer.remedy, trail)
    return Deferred(answer.reply, scope, remedy=answer.remedy, trail=trail)
