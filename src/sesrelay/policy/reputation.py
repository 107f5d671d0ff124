"""How an SES account stands, and how near it is to what AWS acts on: its rates of bounces and complaints.

Source: Amazon SES developer guide, "Reputation metrics": an account comes under review at a bounce rate of 5 % or a
complaint rate of 0.1 %, and sending may be paused at 10 % and 0.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass

BOUNCE_REVIEW, COMPLAINT_REVIEW = 0.05, 0.001
ENOUGH = 200  # messages; of fewer a single bounce says nothing

_REMEDIES = {
    "bounce": "send only to addresses that asked for your mail, and remove those that bounce; at 10 % AWS may pause the account",
    "complaint": (
        "send only to people who asked for your mail, and let them unsubscribe immediately; at 0.5 % AWS may pause the account"
    ),
}


@dataclass(frozen=True, slots=True)
class AccountStanding:
    """How an SES account stands in its region, as it last said; None: not told.

    Units: `rate` recipients a second; `max_24h` recipients, -1: unlimited; `seconds_left` until the quota is used up at the
    present rate, infinite where it is not; the rest numbers of messages. `reserving`: what is left is kept for urgent mail.
    """

    region: str
    credential_id: str
    number: str | None = None
    rate: float | None = None
    max_24h: float | None = None
    sent_24h: float | None = None
    sandbox: bool | None = None
    reserving: bool = False
    seconds_left: float = float("inf")
    attempts_24h: int | None = None
    bounces_24h: int | None = None
    complaints_24h: int | None = None
    rejects_24h: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of the last 24 hours, a part of 1; None where nothing was sent."""

    name: str
    value: float | None
    limit: float
    enough: bool

    @property
    def bad(self) -> bool:
        return self.enough and self.value is not None and self.value >= self.limit

    @property
    def shown(self) -> str:
        return "–" if self.value is None else f"{self.value * 100:.2f} %"

    @property
    def remedy(self) -> str:
        return _REMEDIES[self.name]


def rates(attempts: int, bounces: int, complaints: int) -> tuple[Rate, Rate]:
    """Return the bounce rate and the complaint rate."""

    def rate(name: str, number: int, limit: float) -> Rate:
        return Rate(name, number / attempts if attempts else None, limit, attempts >= ENOUGH)

    return rate("bounce", bounces, BOUNCE_REVIEW), rate("complaint", complaints, COMPLAINT_REVIEW)
