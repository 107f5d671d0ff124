"""What an outcome means for a delivery: its next state, when it is due, and whether a report is owed.

Invariant: an ambiguous attempt never ends in failure, and is never repeated by another transport.
Invariant: an obstacle that is ours or the operator's to mend (nexthop, transport, sender's domain) spends no
attempt and never bounces: at `max_age` it is held.
Invariant: what fails is reported to its sender, unless the sender asked not to be told; a report of ours that cannot go
its way goes down the ladder, and any other failure that has no sender to tell is held. Neither is ever dropped.

Source: RFC 3461 §4.1 (NOTIFY), §5.2.2 (relayed).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sesrelay.mail.delivery import Delivery, State
from sesrelay.mail.envelope import Rung
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, Scope
from sesrelay.mail.value import value
from sesrelay.policy.retry import AMBIGUOUS_WAIT, DOUBTS_MAX, RetryPolicy

End = Literal["delivered", "failed", "expired", "suppressed"]
Report = Literal["failed", "delayed", "relayed", "lower"]
"""What is due: a report of that kind to the sender; `lower`: this report itself, once more, by another way."""

SPENDS_ATTEMPT = frozenset({Scope.RECIPIENT, Scope.MESSAGE})
FAILS_AT_MAX_AGE = frozenset({Scope.RECIPIENT, Scope.MESSAGE, Scope.RECIPIENT_DOMAIN})
KEPT = "hold"  # why mail waits that a transport keeps: nobody else has it, whatever a crash has left in doubt there
NO_WAY = frozenset({"no_route", "no_sender", "permission"})  # why a report's way is none, though an operator could make it one


@value(frozen=True, slots=True)
class Verdict:
    """The delivery's next state in full. `end` is set where it is final, `report` where a DSN is due to the sender."""

    state: State
    due: float
    attempts: int
    doubts: int
    pinned: str | None = None
    reason: str | None = None
    reply: str | None = None
    remote_id: str | None = None
    warned: bool = False
    end: End | None = None
    report: Report | None = None


def decide(
    delivery: Delivery, outcome: Outcome, *, transport: str, retry: RetryPolicy, now: float, chance: float, pause: float = 0.0
) -> Verdict:
    """Return the verdict on `outcome` of an attempt that was already counted in `delivery.attempts`.

    Units: `now` Unix seconds; `pause` seconds that the scope of the outcome is paused for; `chance` in [0, 1).
    """
    spent, reply = delivery.attempts, str(outcome.reply)
    if isinstance(outcome, Delivered):
        relayed: Report | None = "relayed" if _wants(delivery, "SUCCESS") and not outcome.dsn_passed_on else None
        return Verdict(
            State.DELIVERED, now, spent, delivery.doubts, delivery.pinned, None, reply, outcome.remote_id, delivery.warned,
            "delivered", relayed,
        )  # fmt: skip
    if isinstance(outcome, Failed):
        return _failure(delivery, reply, "failed", None, now)
    if isinstance(outcome, Held):
        if outcome.reason in NO_WAY and _can_go_lower(delivery) and not delivery.pinned:
            return _lower(delivery, reply, "failed", outcome.reason, now)
        held = _held(delivery, outcome.reason, reply, now, attempts=max(spent - 1, 0))
        return replace(held, doubts=0, pinned=None) if outcome.reason == KEPT else held
    if outcome.ambiguous:
        return _doubt(delivery, transport, reply, retry, now, chance)
    return _deferral(delivery, outcome, reply, retry, now, chance, pause)


def overdue(delivery: Delivery, retry: RetryPolicy, now: float) -> Verdict | None:
    """Return the verdict on a delivery that waits behind a pause, or None where its age calls for nothing yet."""
    if retry.expired(delivery.message.began, now):
        if _can_go_lower(delivery) and not delivery.pinned:
            return _lower(delivery, delivery.reply or "", "expired", "max_age", now)
        return _held(delivery, "max_age", delivery.reply, now)
    if _warning_due(delivery, retry, now):
        return Verdict(
            State.QUEUED, delivery.due, delivery.attempts, delivery.doubts, delivery.pinned, delivery.reason, delivery.reply,
            warned=True, report="delayed",
        )  # fmt: skip
    return None


def _held(delivery: Delivery, reason: str, reply: str | None, now: float, *, attempts: int | None = None) -> Verdict:
    """Lay it before the operator; `attempts` None: as many as are counted in it."""
    spent = delivery.attempts if attempts is None else attempts
    return Verdict(State.HELD, now, spent, delivery.doubts, delivery.pinned, reason, reply, warned=delivery.warned)


def _failure(delivery: Delivery, reply: str, end: End, reason: str | None, now: float) -> Verdict:
    if _can_go_lower(delivery):
        return _lower(delivery, reply, end, reason, now)
    if not delivery.message.sender:  # nobody can be told: it is laid before the operator
        return _held(delivery, "double_bounce", reply, now)
    report: Report | None = "failed" if _wants(delivery, "FAILURE") else None
    return Verdict(
        State.FAILED, now, delivery.attempts, delivery.doubts, delivery.pinned, reason, reply, None, delivery.warned, end, report
    )


def _can_go_lower(delivery: Delivery) -> bool:
    report = delivery.message.report
    return report is not None and report.rung < Rung.FOLDER


def _lower(delivery: Delivery, reply: str, end: End, reason: str | None, now: float) -> Verdict:
    return Verdict(
        State.FAILED, now, delivery.attempts, delivery.doubts, delivery.pinned, reason, reply, None, delivery.warned, end, "lower"
    )


def _doubt(delivery: Delivery, transport: str, reply: str, retry: RetryPolicy, now: float, chance: float) -> Verdict:
    doubts = delivery.doubts + 1
    if doubts >= DOUBTS_MAX or retry.expired(delivery.message.began, now):
        return Verdict(State.HELD, now, delivery.attempts, doubts, transport, "in_doubt", reply, warned=delivery.warned)
    due = now + max(AMBIGUOUS_WAIT, retry.delay(delivery.attempts, chance))
    return Verdict(State.QUEUED, due, delivery.attempts, doubts, transport, "in_doubt", reply, warned=delivery.warned)


def _deferral(
    delivery: Delivery, outcome: Deferred, reply: str, retry: RetryPolicy, now: float, chance: float, pause: float
) -> Verdict:
    reason = outcome.reason.value if outcome.reason else None
    if outcome.scope is Scope.SENDER_DOMAIN and _can_go_lower(delivery) and not delivery.pinned:
        return _lower(delivery, reply, "failed", reason, now)  # mailer-daemon@ that domain may not send: others of it may
    spends = outcome.scope in SPENDS_ATTEMPT
    attempts = delivery.attempts if spends else max(delivery.attempts - 1, 0)
    if outcome.retry_after == 0.0 and not spends:  # nothing was tried: what its age calls for is for the next attempt to say
        return Verdict(
            State.QUEUED, now, attempts, delivery.doubts, delivery.pinned, reason, reply, None, delivery.warned, None, None
        )  # fmt: skip
    if retry.expired(delivery.message.began, now):
        if delivery.pinned:
            return _held(delivery, "in_doubt", reply, now, attempts=attempts)
        blamed = outcome.scope in FAILS_AT_MAX_AGE and not (outcome.scope is Scope.MESSAGE and outcome.reason)
        if blamed or _can_go_lower(delivery):
            return _failure(delivery, reply, "expired", "max_age", now)
        return _held(delivery, "max_age", reply, now, attempts=attempts)
    if spends:
        due = retry.next_due(attempts, delivery.message.began, now, chance)
        if outcome.retry_after is not None:
            due = max(due, now + outcome.retry_after)
    else:
        due = now + pause
    warn = _warning_due(delivery, retry, now)
    return Verdict(
        State.QUEUED, due, attempts, delivery.doubts, delivery.pinned, reason, reply, None, delivery.warned or warn, None,
        "delayed" if warn else None,
    )  # fmt: skip


def _warning_due(delivery: Delivery, retry: RetryPolicy, now: float) -> bool:
    return not delivery.warned and retry.warning_due(delivery.message.began, now) and _wants(delivery, "DELAY")


def _wants(delivery: Delivery, what: Literal["SUCCESS", "FAILURE", "DELAY"]) -> bool:
    """Tell whether the sender is to be told: never a null sender; without NOTIFY failures and delays (RFC 3461 §4.1)."""
    if not delivery.message.sender:
        return False
    notify = delivery.recipient.notify
    return what != "SUCCESS" if notify is None else what in notify
