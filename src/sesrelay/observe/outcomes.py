"""The one word by which log and metrics call an outcome."""

from __future__ import annotations

from typing import Literal

from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome

OutcomeName = Literal["delivered", "deferred", "failed", "ambiguous", "held"]


def outcome_name(outcome: Outcome) -> OutcomeName:
    """Return what the log calls an outcome, and `attempts_total` all but `held`."""
    if isinstance(outcome, Delivered):
        return "delivered"
    if isinstance(outcome, Deferred):
        return "ambiguous" if outcome.ambiguous else "deferred"
    return "failed" if isinstance(outcome, Failed) else "held"
