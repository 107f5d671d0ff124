"""What an SES account may send, and what became of what it sent, as it says itself.

Source: Amazon SES API v2 GetAccount; API v1 GetSendQuota where v2 is missing or the policy forbids it, GetSendStatistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sesrelay.policy.reputation import Rate, rates

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sesv2 import SESV2Client

SANDBOX_FIGURES = (1.0, 200.0)  # recipients a second, and in 24 hours


@dataclass(frozen=True, slots=True)
class Account:
    """Units: recipients a second; recipients in 24 hours, -1: unlimited. `sandbox` None: not told.

    `answer`: all that GetAccount says, empty where v1 alone answers. What is not in it is not known, neither yes nor no.
    """

    max_send_rate: float
    max_24h_send: float
    sent_last_24h: float
    sandbox: bool | None = None
    answer: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def fetch(v2: SESV2Client, v1: SESClient) -> Account:
    """Ask SES. Blocks: call it in a thread. Raises: botocore's errors, those of v1 where neither answers, with figures."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - importing it costs 100 ms
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        told = v2.get_account()
        return _account(told["SendQuota"], told)
    except (ClientError, ResponseParserError, KeyError):
        # A refusal, or an endpoint without v2; a network fault goes to the caller, as v1 would meet the same. Where v2 was asked
        # too often v1 may still answer: either has the figures, and each may be asked once a second.
        return _account(v1.get_send_quota(), {})


def _account(quota: Mapping[str, Any], answer: Mapping[str, Any]) -> Account:
    """Raises: KeyError; ResponseParserError for what is no figure, as NaN: nothing can be paced or shown by it"""
    rate, in_24h, sent = (float(quota[name]) for name in ("MaxSendRate", "Max24HourSend", "SentLast24Hours"))
    if not all(map(math.isfinite, (rate, in_24h, sent))):
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 - importing it costs 100 ms

        raise ResponseParserError(
            f"the account's quota contains a value that is not a finite number: {rate:g} a second, {sent:g} of {in_24h:g} sent"
        )
    production = answer.get("ProductionAccessEnabled")
    # The figures tell the sandbox where nothing else does, and no more than that ("Request production access" in the guide).
    by_figures = True if (rate, in_24h) == SANDBOX_FIGURES else None
    return Account(rate, in_24h, sent, by_figures if production is None else not production, answer)


@dataclass(frozen=True, slots=True)
class Reputation:
    """What became of the account's mail of some time in its region, as numbers of messages. A rate is None where none was sent."""

    attempts: int = 0
    bounces: int = 0
    complaints: int = 0
    rejects: int = 0

    @property
    def rates(self) -> tuple[Rate, Rate]:
        """The bounce rate and the complaint rate."""
        return rates(self.attempts, self.bounces, self.complaints)

    def document(self) -> dict[str, Any]:
        bounced, complained = self.rates
        return {
            "delivery_attempts": self.attempts,
            "bounces": self.bounces,
            "complaints": self.complaints,
            "rejects": self.rejects,
            "bounce_rate": bounced.value,
            "complaint_rate": complained.value,
        }


def fetch_reputation(v1: SESClient, now: datetime) -> Reputation:
    """Ask SES. Blocks: call it in a thread. Raises: botocore's errors."""
    return summed(v1.get_send_statistics().get("SendDataPoints", ()), now)


def summed(points: Iterable[Mapping[str, Any]], now: datetime) -> Reputation:
    """Add up the points of the last 24 hours; SES keeps two weeks of them, each of 15 minutes."""
    since = now - timedelta(hours=24)
    return total(point for point in points if "Timestamp" in point and point["Timestamp"] > since)


def total(points: Iterable[Mapping[str, Any]]) -> Reputation:
    """Add up all of `points`."""
    names = ("DeliveryAttempts", "Bounces", "Complaints", "Rejects")
    added = dict.fromkeys(names, 0)
    for point in points:
        for name in names:
            added[name] += int(point.get(name, 0))
    return Reputation(*added.values())
