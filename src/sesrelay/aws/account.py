"""What an SES account may send, and what became of what it sent, as it says itself.

Source: Amazon SES API v2 GetAccount; API v1 GetSendQuota where v2 is missing or the policy forbids it, GetSendStatistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sesrelay.policy.reputation import Rate, rates

if TYPE_CHECKING:
    from mypy_boto3_ses import SESClient
    from mypy_boto3_sesv2 import SESV2Client

SANDBOX_FIGURES = (1.0, 200.0)  # recipients a second, and in 24 hours


@dataclass(frozen=True, slots=True)
class Account:
    """Units: recipients a second; recipients in 24 hours, -1: unlimited. `sandbox` and `enforcement` None: not told."""

    max_send_rate: float
    max_24h_send: float
    sent_last_24h: float
    sandbox: bool | None = None
    sending_enabled: bool = True
    enforcement: str | None = None


def fetch(v2: SESV2Client, v1: SESClient) -> Account:
    """Ask SES. Blocks: call it in a thread. Raises: botocore's errors, those of v1 where neither answers."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - importing it costs 100 ms
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        told = v2.get_account()
        quota = told["SendQuota"]
    except (ClientError, ResponseParserError, KeyError):
        # A refusal, or an endpoint without v2; a network fault goes to the caller, as v1 would meet the same.
        return _by_v1(v1)
    return Account(
        quota["MaxSendRate"],
        quota["Max24HourSend"],
        quota["SentLast24Hours"],
        not told.get("ProductionAccessEnabled", True),
        told.get("SendingEnabled", True),
        told.get("EnforcementStatus"),
    )


def _by_v1(v1: SESClient) -> Account:
    quota = v1.get_send_quota()
    rate, in_24h = quota["MaxSendRate"], quota["Max24HourSend"]
    return Account(rate, in_24h, quota["SentLast24Hours"], sandbox_by_figures(rate, in_24h))


def sandbox_by_figures(max_send_rate: float, max_24h_send: float) -> bool | None:
    """Tell the sandbox by its figures, where these are all that is known. None for others: not told.

    Source: Amazon SES developer guide, "Request production access": 1 a second, 200 in 24 hours.
    """
    return True if (max_send_rate, max_24h_send) == SANDBOX_FIGURES else None


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
