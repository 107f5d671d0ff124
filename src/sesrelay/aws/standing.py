"""How an account stands with SES: its limits, whether it may send, what AWS thinks of its bounces and complaints.

Source: Amazon SES API v2 GetAccount, PutAccountDetails; v1 GetSendQuota, GetSendStatistics (the last 14 days in quarters of an
hour).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sesrelay.aws.account import Reputation, sandbox_by_figures, summed, total
from sesrelay.aws.clients import AwsError, Clients, told


@dataclass(frozen=True, slots=True)
class Standing:
    """What SES tells of an account in one region; None: it did not tell.

    Units: recipients a second, recipients in 24 hours (`max_24h_send` None where there is no limit).
    """

    region: str
    max_send_rate: float
    max_24h_send: float | None
    sent_last_24h: float
    sandbox: bool | None
    sending_enabled: bool | None
    enforcement: str | None
    suppression: tuple[str, ...] | None
    details: Mapping[str, Any]
    last_24h: Reputation | None
    last_14d: Reputation | None

    @property
    def review(self) -> str | None:
        """How the request for production access stands, in lower case."""
        status = (self.details.get("ReviewDetails") or {}).get("Status")
        return str(status).lower() if status else None

    def document(self) -> dict[str, Any]:
        review = self.details.get("ReviewDetails") or {}
        bounced, complained = (self.last_14d or Reputation()).rates
        return {
            "region": self.region,
            "sandbox": self.sandbox,
            "sending_enabled": self.sending_enabled,
            "enforcement": self.enforcement,
            "max_send_rate": self.max_send_rate,
            "max_24h_send": self.max_24h_send,
            "sent_last_24h": self.sent_last_24h,
            "remaining_24h": None if self.max_24h_send is None else max(self.max_24h_send - self.sent_last_24h, 0.0),
            "bounce_rate": bounced.value,
            "complaint_rate": complained.value,
            "last_24h": self.last_24h.document() if self.last_24h else None,
            "last_14d": self.last_14d.document() if self.last_14d else None,
            "suppression": None if self.suppression is None else list(self.suppression),
            "mail_type": str(self.details["MailType"]).lower() if self.details.get("MailType") else None,
            "review": {"status": self.review, "case": review.get("CaseId")},
        }


def standing(clients: Clients, now: float) -> Standing:
    """Ask SES; where GetAccount is not allowed, v1 tells the limits alone. Units: `now` Unix seconds. Raises: AwsError"""
    last_24h, last_14d = _statistics(clients, now)
    try:
        with told("read the account"):
            answer = clients["sesv2"].get_account()
            quota = answer.get("SendQuota", {})
    except AwsError as error:
        if error.temporary:
            raise
        with told("read the account's quota"):
            quota, answer = clients["ses"].get_send_quota(), None
    rate, limit = float(quota.get("MaxSendRate", 0.0)), float(quota.get("Max24HourSend", 0.0))
    known = answer is not None
    answer = answer or {}
    return Standing(
        region=clients.region,
        max_send_rate=rate,
        max_24h_send=None if limit < 0 else limit,
        sent_last_24h=float(quota.get("SentLast24Hours", 0.0)),
        sandbox=not answer.get("ProductionAccessEnabled", False) if known else sandbox_by_figures(rate, limit),
        sending_enabled=bool(answer.get("SendingEnabled")) if known else None,
        enforcement=str(answer["EnforcementStatus"]).lower() if answer.get("EnforcementStatus") else None,
        suppression=tuple(reason.lower() for reason in (answer.get("SuppressionAttributes") or {}).get("SuppressedReasons", ()))
        if known
        else None,
        details=answer.get("Details") or {},
        last_24h=last_24h,
        last_14d=last_14d,
    )


def request_production(clients: Clients, details: Mapping[str, Any]) -> None:
    """Ask AWS to take the account out of the sandbox. Raises: AwsError"""
    with told("ask for production access"):
        clients["sesv2"].put_account_details(**details, ProductionAccessEnabled=True)


def _statistics(clients: Clients, now: float) -> tuple[Reputation | None, Reputation | None]:
    """Return what was sent in a day and in all that SES tells of, or None where it may not be asked."""
    try:
        with told("read the sending statistics"):
            points = clients["ses"].get_send_statistics().get("SendDataPoints", [])
    except AwsError as error:
        if error.temporary:
            raise
        return None, None
    return summed(points, datetime.fromtimestamp(now, UTC)), total(points)
