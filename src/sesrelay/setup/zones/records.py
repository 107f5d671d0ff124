"""The DNS records that a sender's domain wants, and what a record that is there has to do with one that is wanted.

Source: SES developer guide, "Easy DKIM", "BYODKIM", "Using a custom MAIL FROM domain"; RFC 7489 §6.3 (DMARC), RFC 7208 (SPF).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sesrelay.aws.identities import Identity
from sesrelay.setup.zones import spf

TTL = 3600  # seconds; long enough for a record that changes once in years, short enough to mend
SES_SPF = "include:amazonses.com"
Purpose = Literal["dkim", "mail_from", "spf", "dmarc"]
Type = Literal["CNAME", "MX", "TXT"]
State = Literal["ok", "missing", "different", "unknown"]


@dataclass(frozen=True, slots=True)
class Record:
    """One wanted record. `value`: a TXT's text without quotes, a host name without its final dot, `10 HOST` of an MX.

    `value` empty: only that there is one can be told (a DKIM key of one's own that was not named).
    """

    name: str
    type: Type
    value: str
    purpose: Purpose
    ttl: int = TTL

    @property
    def spf_terms(self) -> tuple[str, ...]:
        """The mechanisms of an SPF record, but for how it ends."""
        return tuple(term for term in self.value.split()[1:] if term.lower().lstrip("+-~?") != "all")

    @property
    def is_spf(self) -> bool:
        return self.type == "TXT" and spf.is_spf(self.value)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up says of a name and type. `values` None: it says nothing, and `trouble` why."""

    values: tuple[str, ...] | None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A wanted record beside what is there. `note`: what is wrong, or what stands in for it."""

    record: Record
    state: State
    found: tuple[str, ...] = ()
    note: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a record of another name does what this one would."""
        return self.state == "ok" and not self.found

    def document(self) -> dict[str, Any]:
        record = self.record
        return {
            "name": record.name,
            "type": record.type,
            "value": record.value or None,
            "ttl": record.ttl,
            "purpose": record.purpose,
            "state": self.state,
            "found": list(self.found),
            "note": self.note,
        }


def wanted(
    identity: Identity, *, own_dkim: str = "", root_spf: Sequence[str] = (), dmarc: str = "v=DMARC1; p=none"
) -> list[Record]:
    """Return the records of a domain. `own_dkim`: the text for a key of one's own; `root_spf`: what sends for it beside SES."""
    domain = identity.domain
    if identity.own_key:
        records = [Record(f"{token}._domainkey.{domain}", "TXT", own_dkim, "dkim") for token in identity.tokens]
    else:
        records = [Record(f"{token}._domainkey.{domain}", "CNAME", f"{token}.{identity.zone}", "dkim") for token in identity.tokens]
    if identity.mail_from:
        records.append(Record(identity.mail_from, "MX", f"10 {feedback_host(identity.region)}", "mail_from"))
        records.append(Record(identity.mail_from, "TXT", spf.merge([], [SES_SPF]), "mail_from"))
    if root_spf:
        records.append(Record(domain, "TXT", spf.merge([], root_spf), "spf"))
    records.append(Record(f"_dmarc.{domain}", "TXT", dmarc, "dmarc"))
    return records


def feedback_host(region: str) -> str:
    """Return the host that takes the bounces of a custom MAIL FROM domain."""
    return f"feedback-smtp.{region}.amazonses.com"


def compare(record: Record, found: Found) -> Finding:
    """Tell whether what is there does what is wanted."""
    if found.values is None:
        return Finding(record, "unknown", note=found.trouble)
    values = tuple(found.values)
    if record.type == "TXT":
        values = tuple(value for value in values if same_kind(record, value))
    if not values:
        return Finding(record, "missing")
    if len(values) > 1:
        return Finding(record, "different", values, _too_many(record))
    if serves(record, values[0]):
        return Finding(record, "ok", values)
    return Finding(record, "different", values, _wrong(record, values[0]))


def same_kind(record: Record, value: str) -> bool:
    """Tell whether a TXT value is of the kind that may stand only once: SPF, DMARC, a DKIM key."""
    if record.is_spf:
        return spf.is_spf(value)
    if record.purpose == "dmarc":
        return is_dmarc(value)
    return "p=" in value.replace(" ", "")


def serves(record: Record, value: str) -> bool:
    """Tell whether one value that is there does what is wanted."""
    if record.purpose == "dmarc":
        return is_dmarc(value)
    if record.is_spf:
        return spf.covers(value, record.spf_terms)
    if record.type == "TXT":
        key = key_of(value)
        return bool(key) and (not record.value or key == key_of(record.value))
    return _plain(value) == _plain(record.value)


def is_dmarc(value: str) -> bool:
    return value.replace(" ", "").lower().startswith("v=dmarc1;") or value.strip().lower() == "v=dmarc1"


def key_of(text: str) -> str:
    """Return the key that a DKIM record holds; empty: none. Source: RFC 6376 §3.2 (the case of tags counts), §3.6.1"""
    tags = (part.partition("=") for part in text.split(";"))
    return next(("".join(value.split()) for name, _, value in tags if name.strip() == "p"), "")


def _plain(value: str) -> str:
    return " ".join(value.lower().rstrip(".").split())


def _too_many(record: Record) -> str:
    if record.type == "MX":
        return "a MAIL FROM domain has exactly one MX: remove the others"
    if record.is_spf:
        return "several SPF records at one name are an error: merge them into one"
    return "there must be only one"


def _wrong(record: Record, value: str) -> str:
    if record.is_spf:
        return f"it lacks {' '.join(record.spf_terms)}"
    if record.type == "MX":
        return "this is not the MX host of SES: use a MAIL FROM domain for nothing else"
    if record.type == "TXT":
        return "it has another key" if key_of(value) else "it has no key, which means a revoked key"
    return "it points elsewhere"
