"""The transport straight to the recipient domain's own mail hosts, found by MX.

Invariant: each address is looked up once, guarded, and that very address is connected to; a name is never resolved again.
Invariant: a domain fails only where every host that could be asked says so for good.
Invariant: the next host is tried only where the former has certainly not taken the message.

Source: RFC 5321 §5.1 (order, ourselves among the hosts), RFC 7505, RFC 7435 (opportunistic TLS).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from dns.rdatatype import RdataType

from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.outcome import Deferred, Failed, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock, Content, Observer
from sesrelay.transport.client.answers import agree, from_mail_host
from sesrelay.transport.client.connect import Endpoint, Timeouts
from sesrelay.transport.client.content import Payload, carried
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.client.pool import Keeping, Pool
from sesrelay.transport.client.signing import KeysByDomain, signer
from sesrelay.transport.direct.by_domain import BATCH_LIMIT, CONCURRENCY, ByDomain
from sesrelay.transport.direct.hosts import Place, Places
from sesrelay.transport.direct.visit import Visit
from sesrelay.transport.exchangers.mx import LIFETIME, MailHosts
from sesrelay.transport.exchangers.validation import validation
from sesrelay.transport.net.reach import STAGGER
from sesrelay.transport.tls.mta_sts_cache import PolicyCache
from sesrelay.transport.tls.policy import DomainTls, Level, TlsOptions, TlsPolicies
from sesrelay.transport.tls.security import Security

ADDRESS_LIMIT = 10  # connections for one attempt, so that a domain of many dead hosts holds up no lane for an hour
DEAD_FOR = 300.0  # seconds; Postfix's minimal_backoff_time
ENDPOINTS = 5_000  # remembered


@dataclass(frozen=True, slots=True)
class DirectOptions:
    """`nameservers` empty: the system's. `source_address` an IP address of this host. `ca_file` replaces the system's issuers.

    `tls` and what follows of it: see TlsOptions. Units: `failover_after`, `dns_lifetime` seconds.
    """

    local_hostname: str
    port: int = 25
    tls: Level = "opportunistic"
    nameservers: Sequence[str] = ()
    allow_private_addresses: bool = False
    source_address: str | None = None
    ca_file: Path | None = None
    batch_limit: int = BATCH_LIMIT
    concurrency: int = CONCURRENCY
    address_families: Sequence[Literal["ipv4", "ipv6"]] = ("ipv4", "ipv6")  # receivers are stricter with IPv6
    race_addresses: bool = False
    failover_after: float = 600.0
    dkim: KeysByDomain = field(default_factory=dict)
    tls_by_domain: Mapping[str, Level] = field(default_factory=dict)
    policies: PolicyCache = field(default_factory=PolicyCache)
    policy_port: int = 443
    tlsrpt_socket: Path | None = None
    dns_lifetime: float = LIFETIME
    keeping: Keeping = field(default_factory=lambda: Keeping(idle=5.0, messages=100))  # strangers want short visits
    timeouts: Timeouts = field(default_factory=Timeouts)


class DirectTransport(ByDomain):
    """Implements `sesrelay.seams.Transport`. Raises: ValueError, OSError, ssl.SSLError for options that cannot be used."""

    def __init__(self, name: str, options: DirectOptions, clock: Clock, observer: Observer | None = None) -> None:
        self.name = name
        self.batch_limit = options.batch_limit
        self.concurrency = options.concurrency
        self.failover_after = options.failover_after
        self._options = options
        self._clock = clock
        self._pool = Pool(options.keeping, clock)
        self._dead = DeadHosts(clock, DEAD_FOR)
        self._endpoints: dict[tuple[str, str, Security], Endpoint] = {}
        self._observer = observer
        self._looking: asyncio.Task[None] | None = None
        self._dns = dns = MailHosts(clock, options.nameservers, options.dns_lifetime)
        self._tls = TlsPolicies(
            TlsOptions(
                options.tls, options.tls_by_domain, options.ca_file, options.policies, options.policy_port, options.tlsrpt_socket
            ),
            dns,
            clock,
            options.port,
            allow_private=options.allow_private_addresses,
        )
        self._places = Places(
            dns,
            clock,
            self._dead,
            options.local_hostname,
            _families(options),
            options.race_addresses,
            options.allow_private_addresses,
        )

    def start(self) -> None:
        """Look whether the name servers do what DANE rests on; connections are made when there is mail."""
        if self._observer is not None and self._tls.by_dns:
            self._looking = asyncio.get_running_loop().create_task(self._look_at_resolver(self._observer))

    async def _look_at_resolver(self, observer: Observer) -> None:
        found = await validation(self._dns)
        if found.remedy:
            observer.trouble(f"`tls: dane`: {found.message}", transport=self.name, remedy=found.remedy)
        else:
            observer.notice(f"`tls: dane`: {found.message}", transport=self.name)

    async def close(self) -> None:
        """Leave the idle connections; those in use are left when their message is done."""
        if self._looking is not None:
            self._looking.cancel()
        self._pool.close()
        self._tls.close()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        payload = Payload(content, signer=signer(self._options.dkim, batch.message, self._clock))
        return await carried(batch, payload, self._deliver)

    async def _deliver(self, batch: Batch, payload: Payload) -> Mapping[DeliveryId, Outcome]:
        domain = domain_of(batch.deliveries[0].recipient.address)
        if not domain:
            no_domain = Reply(550, "5.1.3", "the recipient's address has no domain to which mail can be sent")
            return batch.for_all(Failed(no_domain))
        refusals: list[Outcome] = []
        settled: dict[DeliveryId, Outcome] = {}
        silent: set[str] = set()
        tries = ADDRESS_LIMIT
        tls: DomainTls | None = None
        async for place in self._places.of(domain):
            if not isinstance(place, Place):
                refusals.append(place)
                continue
            if not tries:
                break
            tls = tls or await self._tls.of(domain)
            security = await tls.host(place.name)
            if isinstance(security, Deferred):
                refusals.append(security)
                continue
            left = [address for address in place.addresses if address not in silent]
            endpoints = [self._endpoint(place.name, address, security) for address in left[:tries]]
            visit = Visit(self._pool, self._dead, endpoints, batch, settled, silent)
            done = await visit.offer(payload, stagger=STAGGER if self._options.race_addresses else None)
            if done is not None:
                said = {key: from_mail_host(answer, done.trail, dsn_passed_on=done.dsn) for key, answer in done.answers.items()}
                return done.certain(settled | said)
            refusals += visit.refusals
            tries -= visit.tried
            batch = visit.batch
        return {**settled, **batch.for_all(agree(refusals))}

    def _endpoint(self, host: str, address: str, security: Security) -> Endpoint:
        """Return the one endpoint of this host and address under this TLS: what connections are kept by."""
        known = self._endpoints.get((host, address, security))
        if known is not None:
            return known
        options = self._options
        endpoint = Endpoint(
            name=host,
            port=options.port,
            address=address,
            security=security,
            local_hostname=options.local_hostname,
            source_address=options.source_address,
            timeouts=options.timeouts,
        )
        if len(self._endpoints) >= ENDPOINTS:  # connections kept by it are left when they have been idle for long enough
            del self._endpoints[next(iter(self._endpoints))]
        self._endpoints[host, address, security] = endpoint
        return endpoint


def _families(options: DirectOptions) -> tuple[RdataType, ...]:
    """Return what to look up, in order of preference; one family where the source is bound to one."""
    families = [RdataType.A if family == "ipv4" else RdataType.AAAA for family in options.address_families]
    if options.source_address is None:
        return tuple(families)
    return (RdataType.A,) if ip_address(options.source_address).version == 4 else (RdataType.AAAA,)
