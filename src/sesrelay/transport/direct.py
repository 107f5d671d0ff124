"""The transport straight to the recipient domain's own mail hosts, found by MX.

Invariant: each address is looked up once, guarded, and that very address is connected to; a name is never resolved again.
Invariant: a domain fails only where every host that could be asked says so for good.
Invariant: the next host is tried only where the former has certainly not taken the message.

Source: RFC 5321 §5.1 (order, ourselves among the hosts), RFC 7505, RFC 7435 (opportunistic TLS).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from dns.rdatatype import RdataType

from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Batch, DeliveryId, Priority
from sesrelay.mail.outcome import Deferred, Failed, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock, Content, SpoolError
from sesrelay.transport import addresses
from sesrelay.transport.mx import LIFETIME, MailHost, MailHosts, no_route, without_ourselves
from sesrelay.transport.smtp_answers import Stage, agree, from_mail_host
from sesrelay.transport.smtp_connect import Endpoint, Timeouts, Unreached, tls_context
from sesrelay.transport.smtp_content import Payload
from sesrelay.transport.smtp_session import Session, Transaction

ADDRESS_LIMIT = 10  # connections for one attempt, so that a domain of many dead hosts holds up no lane for an hour


@dataclass(frozen=True, slots=True)
class DirectOptions:
    """`nameservers` empty: the system's. `source_address` an IP address of this host. `ca_file` replaces the system's issuers.

    `tls` required: verified against the mail host's name. Units: `failover_after`, `dns_lifetime` seconds.
    """

    local_hostname: str
    port: int = 25
    tls: Literal["none", "opportunistic", "required"] = "opportunistic"
    nameservers: Sequence[str] = ()
    allow_private_addresses: bool = False
    source_address: str | None = None
    ca_file: Path | None = None
    batch_limit: int = 100  # what every host must take in a transaction (RFC 5321 §4.5.3.1.8)
    concurrency: int = 10
    failover_after: float = 600.0
    dns_lifetime: float = LIFETIME
    timeouts: Timeouts = field(default_factory=Timeouts)


class DirectTransport:
    """Implements `sesrelay.seams.Transport`. Raises: ValueError, OSError, ssl.SSLError for options that cannot be used."""

    def __init__(self, name: str, options: DirectOptions, clock: Clock) -> None:
        self.name = name
        self.batch_limit = options.batch_limit
        self.concurrency = options.concurrency
        self.failover_after = options.failover_after
        self._options = options
        self._clock = clock
        self._dns = MailHosts(options.nameservers, options.dns_lifetime)
        self._context = tls_context(options.tls, options.ca_file)
        self._families = _families(options.source_address)

    def start(self) -> None:
        """Do nothing: connections are made when there is mail."""

    def nexthop(self, recipient: str) -> str:
        return domain_of(recipient)

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: a recipient's host has no rate of ours."""

    async def close(self) -> None:
        """Do nothing: every connection ends with its message."""

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        outcome: Outcome
        try:
            answer = await self._deliver(batch, Payload(content))
        except SpoolError as error:
            outcome = Deferred(Reply(451, "4.3.0", f"the content could not be read: {error}"), Scope.MESSAGE)
        except Exception as error:  # a fault of ours: whatever it is, the mail waits
            outcome = Deferred(Reply(451, "4.3.0", f"internal error: {type(error).__name__}"), Scope.MESSAGE)
        else:
            if isinstance(answer, Mapping):
                return answer
            outcome = answer
        return {delivery.id: outcome for delivery in batch.deliveries}

    async def _deliver(self, batch: Batch, payload: Payload) -> Mapping[DeliveryId, Outcome] | Outcome:
        """Return the outcomes where a host dealt with the message, or the one for all where none did."""
        domain = domain_of(batch.deliveries[0].recipient.address)
        if not domain:
            return Failed(Reply(550, "5.1.3", "the recipient's address has no domain that mail can be taken to"))
        hosts = await self._dns.hosts(domain)
        if isinstance(hosts, Failed | Deferred):
            return hosts
        preferred = without_ourselves(hosts, self._options.local_hostname)
        if not preferred:
            return _loop(domain)
        refusals: list[Outcome] = []
        tried = 0
        async for place in self._places(domain, preferred):
            if not isinstance(place, Endpoint):
                refusals.append(place)
                continue
            if tried == ADDRESS_LIMIT:
                break
            tried += 1
            done = await self._attempt(place, batch, payload)
            if isinstance(done, Mapping):
                return done
            refusals.append(done)
        return agree(refusals)

    async def _places(self, domain: str, hosts: Sequence[MailHost]) -> AsyncIterator[Endpoint | Outcome]:
        """Yield where to connect, best first; and for each host that cannot be used, why."""
        for host in sorted(hosts, key=lambda host: (host.preference, self._clock.chance())):
            found = await self._dns.addresses(host.name, self._families)
            if isinstance(found, Failed | Deferred):
                yield found
                continue
            why = ""
            for address in found:
                why = self._guard(address) or ""
                if why == addresses.OURS:
                    # We are this host: those after it would hand the mail back to us.
                    yield _loop(domain)
                    return
                if not why:
                    yield self._endpoint(host, address)
            if why:
                yield no_route(f"the mail host {host.name} of {domain} has an address that is {why}: mail is not taken there")

    def _guard(self, address: str) -> str | None:
        private_too = self._options.allow_private_addresses
        refused = addresses.refusal(address, allow_private=private_too)
        if refused is None and not private_too and addresses.is_ours(address):
            return addresses.OURS
        return refused

    async def _attempt(self, endpoint: Endpoint, batch: Batch, payload: Payload) -> Mapping[DeliveryId, Outcome] | Outcome:
        """Return the outcomes where the host dealt with the message, or one where the next host is to be asked."""
        try:
            session = await Session.open(endpoint)
        except Unreached as error:
            return from_mail_host(error.answer, error.trail)
        try:
            done = await session.transact(batch, payload)
        finally:
            session.leave()
        elsewhere = _to_next_host(done)
        if elsewhere is not None:
            return elsewhere
        return {key: from_mail_host(answer, done.trail, dsn_passed_on=done.dsn) for key, answer in done.answers.items()}

    def _endpoint(self, host: MailHost, address: str) -> Endpoint:
        options = self._options
        return Endpoint(
            name=host.name,
            port=options.port,
            address=address,
            tls=options.tls,
            local_hostname=options.local_hostname,
            context=self._context,
            source_address=options.source_address,
            timeouts=options.timeouts,
        )


def _to_next_host(done: Transaction) -> Outcome | None:
    """Return the outcome for all where the host refused at MAIL or went away before the final dot, else None."""
    for answer in done.answers.values():
        if not answer.ours and answer.stage is not Stage.DOT and (answer.stage is Stage.MAIL or answer.service_gone):
            return from_mail_host(answer, done.trail)
    return None


def _families(source_address: str | None) -> tuple[RdataType, ...]:
    """Return what to look up: IPv4 first, as receivers are stricter with IPv6; one family where the source is bound to one."""
    if source_address is None:
        return (RdataType.A, RdataType.AAAA)
    return (RdataType.A,) if ip_address(source_address).version == 4 else (RdataType.AAAA,)


def _loop(domain: str) -> Failed:
    text = f"mail for {domain} loops back to this host: it is the domain's mail host, but no mailbox is here"
    return Failed(Reply(554, "5.4.6", text), Scope.RECIPIENT_DOMAIN)
