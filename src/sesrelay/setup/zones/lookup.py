"""Asking the DNS itself for the records of a domain.

Invariant: a look-up that gets no usable answer is told as such, never as a record that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import dns.exception
import dns.name
import dns.rdata
import dns.resolver

from sesrelay.mail.address import parents
from sesrelay.setup.zones.plan import RecordSet
from sesrelay.setup.zones.records import Finding, Found, Record, compare, same_kind
from sesrelay.transport.exchangers.resolver import EDNS_PAYLOAD, in_short, resolver

LIFETIME = 5.0  # seconds for one look-up, over all name servers

Answers = Mapping[tuple[str, str], Found]


class Dns:
    """Looks up. `nameservers` as `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`; empty: the system's. Nothing is remembered."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._resolver = resolver(nameservers, LIFETIME)

    def blocking(self) -> dns.resolver.Resolver:
        """Return a resolver of the same servers for libraries that wait for each answer."""
        made = dns.resolver.Resolver(configure=False)
        made.nameservers, made.lifetime = self._resolver.nameservers, LIFETIME
        made.use_edns(0, 0, EDNS_PAYLOAD)
        return made

    async def ask(self, questions: Iterable[tuple[str, str]]) -> Answers:
        """Return what each name and type has, all asked at once."""
        distinct = list(dict.fromkeys(questions))
        found = await asyncio.gather(*(self._ask(name, kind) for name, kind in distinct))
        return dict(zip(distinct, found, strict=True))

    async def _ask(self, name: str, kind: str) -> Found:
        try:
            answer = await self._resolver.resolve(dns.name.from_text(name), kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return Found(())
        except (dns.exception.DNSException, OSError) as error:
            return Found(None, in_short(error))
        return Found(tuple(sorted(_text(record) for record in answer)))


async def look_up(dns: Dns, domain: str, records: Sequence[Record]) -> Answers:
    """Ask for all records of a domain, and for the DMARC records above it."""
    questions = [(record.name, str(record.type)) for record in records]
    above = [(f"_dmarc.{parent}", "TXT") for parent in parents(domain)]
    return await dns.ask([*questions, *above])


def findings(records: Sequence[Record], answers: Answers) -> list[Finding]:
    """Compare what is there with what is wanted. A DMARC record of a domain above stands in for one of its own."""
    return [_finding(record, answers) for record in records]


def present(answers: Answers) -> list[RecordSet]:
    """Return what the DNS has as the record sets of a zone."""
    return [RecordSet(name, kind, found.values) for (name, kind), found in answers.items() if found.values]


def _finding(record: Record, answers: Answers) -> Finding:
    finding = compare(record, answers.get((record.name, record.type), Found(None, "not asked")))
    if record.purpose == "dmarc" and finding.state == "missing":
        for parent in parents(record.name.removeprefix("_dmarc.")):
            found = answers.get((f"_dmarc.{parent}", "TXT"), Found(()))
            if found.values is None:
                return Finding(record, "unknown", note=f"_dmarc.{parent}: {found.trouble}")
            if any(same_kind(record, value) for value in found.values):
                return Finding(record, "ok", note=f"_dmarc.{parent} applies to it")
    return finding


def _text(record: dns.rdata.Rdata) -> str:
    kind = record.rdtype.name
    if kind == "TXT":
        strings: Sequence[bytes] = record.strings  # type: ignore[attr-defined]
        return b"".join(strings).decode("utf-8", "replace")
    if kind == "MX":
        return f"{record.preference} {record.exchange.to_text(omit_final_dot=True)}"  # type: ignore[attr-defined]
    if kind == "CNAME":
        return str(record.target.to_text(omit_final_dot=True))  # type: ignore[attr-defined]
    return record.to_text()
