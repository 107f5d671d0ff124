"""What the page and the API show of SES accounts: what may still be sent, and how near AWS's thresholds they are.

Invariant: pure; all text stays text here, and the templates escape it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sesrelay.policy import reputation
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.ses_words import SANDBOX_LIMITS
from sesrelay.seams import Document
from sesrelay.web import view


@dataclass(frozen=True, slots=True)
class Fame:
    """A rate beside AWS's threshold for it; `tone` is `bad` above it, `warn` from four fifths of it on."""

    shown: str
    limit: str
    tone: str
    note: str


@dataclass(frozen=True, slots=True)
class Row:
    """One SES transport and the account behind it. `notes`: what an operator should know, worst first, each as `view.spans`."""

    transport: str
    account: str
    rate: str
    sent: str
    quota: str
    left: str
    bounces: Fame
    complaints: Fame
    notes: Sequence[Sequence[tuple[bool, str]]]


def rows(standings: Mapping[str, AccountStanding]) -> list[Row]:
    """Return the rows of the page, by transport."""
    return [_row(name, standings[name]) for name in sorted(standings)]


def documents(standings: Mapping[str, AccountStanding]) -> list[Document]:
    """Return the same for programs: unknown is null."""
    return [
        {
            "transport": name,
            "region": one.region,
            "credentials": one.credential_id,
            "account": one.number,
            "rate": one.rate,
            "quota_24h": one.max_24h,
            "sent_24h": one.sent_24h,
            "quota_seconds_left": one.seconds_left if math.isfinite(one.seconds_left) else None,
            "sandbox": one.sandbox,
            "reserve_in_force": one.reserving,
            "attempts_24h": one.attempts_24h,
            "bounces_24h": one.bounces_24h,
            "complaints_24h": one.complaints_24h,
            "rejects_24h": one.rejects_24h,
        }
        for name, one in sorted(standings.items())
    ]


def _row(name: str, one: AccountStanding) -> Row:
    bounce, complaint = reputation.rates(one.attempts_24h or 0, one.bounces_24h or 0, one.complaints_24h or 0)
    notes = []
    if one.sandbox:
        notes.append(f"in the sandbox: {SANDBOX_LIMITS}")
    if one.reserving:
        notes.append("the rest of the 24 hour quota is reserved for priority high (daily_reserve)")
    notes += [f"the {rate.name} rate is above AWS's threshold: {rate.remedy}" for rate in (bounce, complaint) if rate.bad]
    unlimited = one.max_24h is not None and one.max_24h < 0
    return Row(
        transport=view.plain(name, 80),
        account=view.plain(" · ".join(part for part in (one.region, one.number or one.credential_id) if part), 120),
        rate="–" if one.rate is None else f"{one.rate:g}/s",
        sent="–" if one.sent_24h is None else view.number(one.sent_24h),
        quota="–" if one.max_24h is None else "no limit" if unlimited else view.number(one.max_24h),
        left="" if math.isinf(one.seconds_left) or one.seconds_left > 7 * 86_400 else f"used up in {view.age(one.seconds_left)}",
        bounces=_fame(bounce, one.bounces_24h),
        complaints=_fame(complaint, one.complaints_24h),
        notes=[view.spans(note) for note in notes],
    )


def _fame(rate: reputation.Rate, number: int | None) -> Fame:
    near = rate.enough and rate.value is not None and rate.value >= 0.8 * rate.limit
    limit = f"AWS acts at {rate.limit * 100:g} %"
    return Fame(rate.shown, limit, "bad" if rate.bad else "warn" if near else "", "" if number is None else view.number(number))
