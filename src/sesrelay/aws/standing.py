"""How an account stands with SES: its limits, whether it may send, what AWS thinks of its bounces and complaints.

Source: Amazon SES API v2 GetAccount, PutAccountDetails; v1 GetSendQuota, GetSendStatistics (the last 14 days in quarters of an
hour).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sesrelay.aws.account import Reputation, fetch, summed, total
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
    """Ask SES; where GetAccount does not answer, v1 tells the limits alone. Units: `now` Unix seconds. Raises: AwsError"""
    last_24h, last_14d = _statistics(clients, now)
    with told("read the SES account"):
        account = fetch(clients["sesv2"], clients["ses"])
    answer = account.answer
    suppression = answer.get("SuppressionAttributes")
    return Standing(
        region=clients.region,
        max_send_rate=account.max_send_rate,
        max_24h_send=None if account.max_24h_send < 0 else account.max_24h_send,
        sent_last_24h=account.sent_last_24h,
        sandbox=account.sandbox,
        sending_enabled=answer.get("SendingEnabled"),
        enforcement=str(answer["EnforcementStatus"]).lower() if answer.get("EnforcementStatus") else None,
        suppression=None if suppression is None else tuple(one.lower() for one in suppression.get("SuppressedReasons", ())),
        details=answer.get("Details") or {},
        last_24h=last_24h,
        last_14d=last_14d,
    )


def request_production(clients: Clients, details: Mapping[str, Any]) -> None:
    """Ask AWS to take the account out of the sandbox. Raises: AwsError"""
    with told("request production access"):
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
