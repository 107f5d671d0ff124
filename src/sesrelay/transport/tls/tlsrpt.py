"""TLS reports: how each connection went, told to a collector on this host that makes RFC 8460 reports of it.

The datagrams are those of libtlsrpt, which Postfix links: tlsrpt-collectd takes both alike.

Invariant: nobody waits for a collector, and no mail for its sake.

Source: RFC 8460; libtlsrpt 0.5 (datagram protocol version 1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from dns.rdatatype import RdataType

from sesrelay.seams import Clock
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.exchangers.mx import Absent, MailHosts, Unknown
from sesrelay.transport.tls.mta_sts import reports_wanted
from sesrelay.transport.tls.security import Fault, Finding

VERSION = "1"
PATIENCE = 2.0  # seconds that mail waits for the record, which it does not need
BACKOFF = 300.0  # seconds after one that could not be had


class PolicyType(IntEnum):
    """By the numbers of libtlsrpt."""

    TLSA = 1
    STS = 2
    NONE = 9


class Collector:
    """Where reports are collected, and who wants any."""

    def __init__(self, path: Path, dns: MailHosts, clock: Clock) -> None:
        self._path = str(path)
        self._dns = dns
        self._unknown = DeadHosts(clock, BACKOFF)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    async def record(self, domain: str) -> str | None:
        """Return the record by which a domain asks for reports, or None where it does not, or does not say so in time."""
        if domain in self._unknown:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._dns.answer(f"_smtp._tls.{domain}", RdataType.TXT)
        except Absent:
            return None
        except (Unknown, TimeoutError):
            self._unknown.mark(domain)
            return None
        return reports_wanted(b"".join(one.strings).decode("latin-1") for one in answer.records)

    def send(self, told: dict[str, Any]) -> None:
        """Send one datagram, or leave it."""
        with contextlib.suppress(OSError):  # nobody listens, or not fast enough
            self._socket.sendto(json.dumps(told, separators=(",", ":")).encode(), self._path)

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Report:
    """What is told of connections for one domain, under one policy. Implements `security.Witness`.

    `flaw`: what is wrong with the policy itself, where a connection goes well all the same; `why` says it to people.
    """

    collector: Collector
    domain: str
    record: str
    kind: PolicyType
    policy_domain: str
    strings: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    flaw: Fault | None = None
    why: str = ""

    def __call__(self, finding: Finding) -> None:
        if finding.fault is None and self.flaw is not None:
            finding = replace(finding, fault=self.flaw, text=self.why)
        policy: dict[str, Any] = {"policy-type": int(self.kind), "policy-domain": self.policy_domain}
        if self.strings:
            policy["policy-string"] = list(self.strings)
        if self.patterns:
            policy["mx-host"] = list(self.patterns)
        if finding.fault is not None:
            policy["failure-details"] = [self._details(finding)]
        failed = int(finding.fault is not None)
        self.collector.send(
            {"dpv": VERSION, "d": self.domain, "pr": self.record, "policies": [{**policy, "t": failed, "f": failed}]}
        )

    def _details(self, finding: Finding) -> dict[str, Any]:
        details: dict[str, Any] = {"c": int(finding.fault or 0)}
        for key, value in (("s", finding.local), ("n", finding.host), ("r", finding.address), ("f", finding.text)):
            if value:
                details[key] = value
        return details
