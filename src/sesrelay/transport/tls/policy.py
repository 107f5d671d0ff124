"""Which TLS each mail host of a domain has to show: by configuration, by the domain's MTA-STS policy, or by DANE.

Invariant: `required`, an MTA-STS policy in force and usable TLSA records never end in less than they ask for.
Invariant: MTA-STS never makes good what DANE refuses (RFC 8461 §2).

Source: RFC 7672 §2.2 (when DANE applies), RFC 8461 §5.1 (testing and enforce), RFC 8460 (what is told).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dns.rdatatype import RdataType

from sesrelay.mail.outcome import Deferred, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock
from sesrelay.transport.exchangers.mx import MailHosts, Unknown
from sesrelay.transport.tls import dane
from sesrelay.transport.tls.mta_sts import Policy
from sesrelay.transport.tls.mta_sts_cache import PolicyCache
from sesrelay.transport.tls.mta_sts_fetch import NOTHING, Found, Policies
from sesrelay.transport.tls.security import CLEAR, Fault, Finding, Security, Witness, security, unverified
from sesrelay.transport.tls.tlsrpt import Collector, PolicyType, Report

Level = Literal["none", "opportunistic", "required", "dane", "mta-sts"]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """`by_domain`: a recipient domain, or `*.` and one, to its level; `level` for the others.

    `cache` keeps MTA-STS policies over reloads; `collector` is the socket of a TLSRPT collector. `policy_port`: see Policies.
    """

    level: Level = "opportunistic"
    by_domain: Mapping[str, Level] = field(default_factory=dict)
    ca_file: Path | None = None
    cache: PolicyCache = field(default_factory=PolicyCache)
    policy_port: int = 443
    collector: Path | None = None

    def of(self, domain: str) -> Level:
        """Return the level of a normalised domain: its own, that of the nearest `*.` above it, or the one for all."""
        if domain in self.by_domain:
            return self.by_domain[domain]
        above = domain
        while "." in above:
            above = above.partition(".")[2]
            if f"*.{above}" in self.by_domain:
                return self.by_domain[f"*.{above}"]
        return self.level


class TlsPolicies:
    """Finds out what a domain's hosts have to show. Raises: OSError, ssl.SSLError where `ca_file` cannot be used."""

    def __init__(self, options: TlsOptions, dns: MailHosts, clock: Clock, port: int, *, allow_private: bool) -> None:
        self._options = options
        self._dns = dns
        self._clock = clock
        self._port = port
        self._weak = security("opportunistic")
        self._by_records = unverified()
        levels = {options.level, *options.by_domain.values()}
        self._strong = security("required", options.ca_file) if levels & {"required", "mta-sts"} else None
        self._policies: Policies | None = None
        if "mta-sts" in levels and self._strong is not None and self._strong.context is not None:
            self._policies = Policies(
                dns, clock, options.cache, self._strong.context, options.policy_port, allow_private=allow_private
            )
        self._collector = Collector(options.collector, dns, clock) if options.collector else None

    @property
    def by_dns(self) -> bool:
        """Some domain's hosts are to be judged by DANE."""
        return "dane" in {self._options.level, *self._options.by_domain.values()}

    def close(self) -> None:
        if self._collector is not None:
            self._collector.close()

    async def of(self, domain: str) -> DomainTls:
        """Return what holds for a normalised domain."""
        level = self._options.of(domain)
        found = await self._policies.of(domain) if level == "mta-sts" and self._policies is not None else NOTHING
        record = await self._collector.record(domain) if self._collector is not None and level != "none" else None
        return DomainTls(self, domain, level, found, record)

    async def host(self, level: Level, domain: str, name: str, found: Found, record: str | None) -> Security | Deferred:
        """Return what one mail host has to show, or why mail cannot be taken there."""
        if level == "none":
            return CLEAR
        if level == "required" and self._strong is not None:
            return self._watched(self._strong, domain, record)
        if level == "dane" and not self._dns.trusted:
            return _untrusted()
        if level in ("dane", "mta-sts"):
            by_dns = await self._by_dane(domain, name, record)
            # Records that nobody can use ask for encryption alone, and so for less than a policy in force.
            enforced = found.policy is not None and found.policy.mode == "enforce"
            if by_dns is not None and not (enforced and isinstance(by_dns, Security) and by_dns.proof is None):
                return by_dns
        if found.policy is not None and self._strong is not None:
            return self._by_sts(domain, name, found, found.policy, record, self._strong)
        return self._watched(self._weak, domain, record, found)

    async def _by_dane(self, domain: str, name: str, record: str | None) -> Security | Deferred | None:
        """Return what the TLSA records ask for, None where there are none to go by; and a deferral where nobody knows."""
        if not self._dns.trusted:
            return None
        try:
            if not await dane.is_secure(self._dns, domain, RdataType.MX):
                return None
            published = await dane.tlsa_of(self._dns, name, self._port)
        except Unknown as error:
            text = f"no TLS with {name}: DANE: its TLSA records cannot be looked up: {error}"
            if record is not None:
                Report(self._collected, domain, record, PolicyType.TLSA, name)(Finding(name, "", Fault.DNSSEC_INVALID, text))
            return _deferred(text, "check the zone's DNSSEC: its owner must correct it")
        if published is None:
            return None
        names = tuple(dict.fromkeys((published.base, name, domain)))
        witness: Witness | None = None
        if record is not None:
            strings = tuple(map(str, published.records))
            flaw = None if published.usable else Fault.TLSA_INVALID
            witness = Report(self._collected, domain, record, PolicyType.TLSA, published.base, strings, flaw=flaw)
        if not published.usable:  # encrypted all the same: RFC 7672 §2.2
            return Security("required", self._by_records, published.base, label="dane: no usable TLSA record", witness=witness)
        # Not at the top: it loads cryptography, which only hosts with such records need.
        from sesrelay.transport.tls.dane_proof import DaneProof  # noqa: PLC0415

        proof = DaneProof(published.usable, names, self._clock)
        return Security("required", self._by_records, published.base, proof, "dane: verified", witness=witness)

    def _by_sts(
        self, domain: str, name: str, found: Found, policy: Policy, record: str | None, strong: Security
    ) -> Security | Deferred:
        """Return what the domain's policy asks of the host."""
        if policy.mode == "none":
            return self._watched(self._weak, domain, record, found)
        witness = self._witness(domain, record, found) if record is not None else None
        testing = replace(self._weak, label="mta-sts testing: not met")
        if not policy.names(name):
            text = f"mail is not sent to {name}: it is not in the MTA-STS policy of {domain}"
            if policy.mode == "testing":
                flawed = None if witness is None else replace(witness, flaw=Fault.VALIDATION_FAILURE, why=text)
                return replace(testing, witness=flawed)
            if witness is not None:
                witness(Finding(name, "", Fault.VALIDATION_FAILURE, text))
            return _deferred(text, f"tell the administrator of {domain}: its MX records and its MTA-STS policy do not match")
        otherwise = testing if policy.mode == "testing" else None
        return replace(strong, label=f"mta-sts {policy.mode}: verified", otherwise=otherwise, witness=witness)

    @property
    def _collected(self) -> Collector:
        if self._collector is None:
            raise TypeError("a record is looked up only where there is a collector")
        return self._collector

    def _witness(self, domain: str, record: str, found: Found) -> Report:
        policy = None if found.policy is None or found.policy.mode == "none" else found.policy
        kind = PolicyType.NONE if policy is None and found.fault is None else PolicyType.STS
        lines, mx = (policy.lines, policy.mx) if policy else ((), ())
        return Report(self._collected, domain, record, kind, domain, lines, mx, found.fault, found.text)

    def _watched(self, plain: Security, domain: str, record: str | None, found: Found = NOTHING) -> Security:
        return plain if record is None else replace(plain, witness=self._witness(domain, record, found))


@dataclass(frozen=True, slots=True)
class DomainTls:
    """What holds for one domain, for as long as an attempt takes."""

    policies: TlsPolicies
    domain: str
    level: Level
    found: Found
    record: str | None

    async def host(self, name: str) -> Security | Deferred:
        """Return what a mail host has to show, or why mail cannot be taken there."""
        return await self.policies.host(self.level, self.domain, name, self.found, self.record)


def _deferred(text: str, remedy: str) -> Deferred:
    return Deferred(Reply(451, "4.7.5", text), Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE, remedy)


def _untrusted() -> Deferred:
    text = "tls: dane requires a trusted name server that validates DNSSEC"
    remedy = "run a validating resolver on this host, or set one under nameservers"
    return Deferred(Reply(451, "4.7.5", text), Scope.TRANSPORT, PauseReason.CONFIGURATION, remedy)
