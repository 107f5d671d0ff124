"""How long part of the queue waits after an obstacle that is wider than one message.

Source: SES answers and their actions; Postfix's dead-destination back-off is the model for hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

from sesrelay.mail.outcome import Deferred, PauseReason, Scope

THROTTLE_BASE, THROTTLE_MAX = 1.0, 60.0
UNAVAILABLE_BASE, UNAVAILABLE_MAX = 5.0, 300.0
PROBE_EVERY = {  # seconds between half-open probes
    PauseReason.CREDENTIALS: 60.0,
    PauseReason.QUOTA: 60.0,
    PauseReason.SUSPENDED: 300.0,
    PauseReason.CONFIGURATION: 60.0,
    PauseReason.CLOCK: 60.0,
}


def duration(outcome: Deferred, streak: int, schedule: Sequence[float], chance: float) -> float:
    """Return the seconds to wait before one batch probes again.

    `streak` counts the obstacles of this kind in a row, from 1; `schedule` is the retry schedule, which a recipient's
    domain follows; `chance` in [0, 1) jitters.
    """
    if outcome.retry_after is not None:
        return outcome.retry_after
    jitter = 0.75 + 0.5 * chance
    if outcome.scope is Scope.RECIPIENT_DOMAIN:
        return schedule[min(streak, len(schedule)) - 1] * (0.9 + 0.2 * chance)
    if outcome.scope is Scope.SENDER_DOMAIN:
        return min(300.0 * streak, 1800.0) * jitter
    if outcome.reason is PauseReason.THROTTLED:
        return min(THROTTLE_BASE * 2.0 ** (streak - 1), THROTTLE_MAX) * jitter
    if outcome.reason in PROBE_EVERY:
        return PROBE_EVERY[outcome.reason] * jitter
    return min(UNAVAILABLE_BASE * 2.0 ** (streak - 1), UNAVAILABLE_MAX) * jitter
