"""DANE: what the DNS, under DNSSEC, says of a mail host's certificate. Whether the host keeps to it: `dane_proof`.

Invariant: a TLSA record counts only where the name server vouches for it, for the way to the host and for its addresses, or for
the host's being an alias.
Invariant: what cannot be looked up is not the same as what is not there: it defers.

Source: RFC 7672 §2.2 (look-ups), §3.1 (usages 2 and 3 only); RFC 7671 §9 (the strongest digest); RFC 6698 §2.
"""

from __future__ import annotations

from dataclasses import dataclass

from dns.rdatatype import RdataType

from sesrelay.transport.exchangers.mx import Absent, MailHosts

TA, EE = 2, 3  # usages: a trust anchor, the host's own certificate; 0 and 1 mean nothing to SMTP (RFC 7672 §3.1.3)
CERTIFICATE, PUBLIC_KEY = 0, 1  # selectors
FULL, SHA256, SHA512 = 0, 1, 2  # matching types
_LENGTHS = {SHA256: 32, SHA512: 64}


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One record."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        if self.usage not in (TA, EE) or self.selector not in (CERTIFICATE, PUBLIC_KEY) or not self.data:
            return False
        return self.matching == FULL or _LENGTHS.get(self.matching) == len(self.data)

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class TlsaSet:
    """What is published for a host: under which name, and the records, usable or not."""

    base: str
    records: tuple[Tlsa, ...]

    @property
    def usable(self) -> tuple[Tlsa, ...]:
        """The usable records; of one usage and selector, only those of the strongest digest, and full data."""
        usable = [one for one in self.records if one.usable]
        strongest = {
            (one.usage, one.selector): max(
                other.matching for other in usable if (other.usage, other.selector) == (one.usage, one.selector)
            )
            for one in usable
        }
        return tuple(one for one in usable if one.matching in (FULL, strongest[one.usage, one.selector]))


async def is_secure(dns: MailHosts, name: str, kind: RdataType) -> bool:
    """Tell whether the name server vouches for an answer, be it that there is none. Raises: Unknown."""
    try:
        return (await dns.answer(name, kind)).secure
    except Absent as error:
        return error.secure


async def tlsa_of(dns: MailHosts, host: str, port: int) -> TlsaSet | None:
    """Return what is published for a host, or None where nothing is that could be trusted. Raises: Unknown."""
    names: list[str] = []
    for family in (RdataType.A, RdataType.AAAA):
        try:
            found = await dns.answer(host, family)
        except Absent:
            continue
        names.append(found.canonical)
        if found.secure:
            continue
        if found.canonical == host or not await is_secure(dns, host, RdataType.CNAME):
            return None  # and so no TLSA record could be worth anything: RFC 7672 §2.2.2
        names = [host]  # an alias that is vouched for, of a host that is not: its own records count
        break
    for base in dict.fromkeys((*names[:1], host)):
        try:
            found = await dns.answer(f"_{port}._tcp.{base}", RdataType.TLSA)
        except Absent:
            continue
        if found.secure:
            return TlsaSet(base, tuple(Tlsa(one.usage, one.selector, one.mtype, bytes(one.cert)) for one in found.records))
    return None
