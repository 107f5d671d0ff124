"""The transport to a relay that the configuration names: another mail server, or SES's SMTP endpoint.

Hosts are tried in order; one that could not be reached lately comes after the others for a while.

Invariant: another host is tried only where the former has certainly not taken the message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.outcome import Deferred, Outcome, PauseReason, Trail
from sesrelay.seams import Clock, Content
from sesrelay.transport.client.answers import Answer, from_relay, most_telling
from sesrelay.transport.client.connect import Endpoint, Timeouts, Unreached
from sesrelay.transport.client.content import Payload, carried
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.client.exchange import converse, over_kept
from sesrelay.transport.client.pool import Keeping, Pool
from sesrelay.transport.client.session import Session, Transaction
from sesrelay.transport.client.signing import KeysByDomain, signer
from sesrelay.transport.smtp.for_ses import Shaping, shaped_first
from sesrelay.transport.smtp.ses_answers import from_ses
from sesrelay.transport.tls.security import Security, Tls, security, unverified

LookUp = Callable[[str], Awaitable[list[str]]]
DOWN_FOR = 60.0  # seconds for which a host that could not be reached comes after the others


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """`hosts` in order of preference. `ca_file` replaces the system's issuers. Units: `failover_after` seconds.

    `tls_name` instead of the host's is what its certificate must be for; `tls_fingerprints` (SHA-256, hexadecimal) are instead
    of any verification. `token` returns the access token for XOAUTH2, or raises OSError or ValueError. `rewrite_sender`: the
    envelope sender of all that has one. `ses`: the hosts are SES's, whose texts are read, and mail is made fit for it by `shaping`.
    `nameservers` as `MailHosts` has them; empty: as the system finds names.
    """

    hosts: Sequence[str]
    local_hostname: str
    port: int = 587
    tls: Tls = "opportunistic"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    token: Callable[[], str] | None = field(default=None, repr=False)
    tls_name: str | None = None
    tls_fingerprints: frozenset[str] = frozenset()
    nameservers: Sequence[str] = ()
    source_address: str | None = None
    rewrite_sender: str | None = None
    ses: bool = False
    shaping: Shaping = field(default_factory=Shaping)
    batch_limit: int = 50  # the most that SES takes in a transaction, and Postfix's default
    concurrency: int = 20  # as Postfix has it for one destination
    failover_after: float = 600.0
    dkim: KeysByDomain = field(default_factory=dict)
    keeping: Keeping = field(default_factory=Keeping)
    timeouts: Timeouts = field(default_factory=Timeouts)


class SmtpTransport:
    """Implements `sesrelay.seams.Transport`. Raises: OSError, ssl.SSLError where `ca_file` cannot be used."""

    def __init__(self, name: str, options: SmtpOptions, clock: Clock) -> None:
        if not options.hosts:
            raise ValueError(f"transport {name} has no host")
        self.name = name
        self.batch_limit = options.batch_limit
        self.concurrency = options.concurrency
        self.failover_after = options.failover_after
        self._clock = clock
        self._dkim = options.dkim
        self._nexthop = f"smtp/{options.hosts[0]}:{options.port}/{options.username or ''}"
        self._ses = options.ses
        self._shaping = options.shaping
        self._rewrite_sender = options.rewrite_sender
        self._endpoints = endpoints(options, clock)
        self._down = DeadHosts(clock, DOWN_FOR)
        self._pool = Pool(options.keeping, clock)

    def start(self) -> None:
        """Do nothing: connections are made when there is mail."""

    def nexthop(self, recipient: str) -> str:
        return self._nexthop

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: a relay has no rate of ours."""

    async def close(self) -> None:
        """Leave the idle connections; those in use are left when their message is done."""
        self._pool.close()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        return await (shaped_first(batch, content, self._relay, self._shaping) if self._ses else self._relay(batch, content))

    def _relay(self, batch: Batch, content: Content) -> Awaitable[Mapping[DeliveryId, Outcome]]:
        keys = signer(self._dkim, batch.message, self._clock)
        return carried(batch, Payload(content, signer=keys, changes=self._receipts(batch)), self._deliver)

    async def _deliver(self, batch: Batch, payload: Payload) -> Mapping[DeliveryId, Outcome]:
        refusals: list[Outcome] = []
        for endpoint in self._in_order():
            try:
                done = await self._via(endpoint, batch, payload)
            except Unreached as error:
                refusal = self._outcome(error.answer, batch.deliveries[0], endpoint, error.trail, dsn=False)
                refusals.append(refusal)
                if isinstance(refusal, Deferred) and refusal.reason is PauseReason.CREDENTIALS:
                    break  # the same login elsewhere would only lock the account
                self._down.mark(endpoint)
                continue
            self._down.forget(endpoint)
            return done.certain(
                {
                    delivery.id: self._outcome(done.answers[delivery.id], delivery, endpoint, done.trail, dsn=done.dsn)
                    for delivery in batch.deliveries
                    if delivery.id in done.answers
                }
            )
        return batch.for_all(most_telling(refusals))

    async def _via(self, endpoint: Endpoint, batch: Batch, payload: Payload) -> Transaction:
        """Offer the message to one host. Raises: Unreached, where it has accepted nothing of it."""
        batch = self._as_sent(batch)
        done = await over_kept(self._pool, endpoint, batch, payload)
        if done is None:
            done = await converse(self._pool, await Session.open(endpoint), batch, payload)
            if done.gone_at_mail is not None:
                raise Unreached(done.gone_at_mail, done.trail.tls)
        return done

    def _receipts(self, batch: Batch) -> tuple[str, ...]:
        sender = batch.message.sender
        if self._rewrite_sender is None or sender in ("", self._rewrite_sender):
            return ()
        return (f"envelope sender {self._rewrite_sender} instead of {sender}",)

    def _as_sent(self, batch: Batch) -> Batch:
        """Return the batch with the sender that this relay gets."""
        if not self._receipts(batch):
            return batch
        envelope = replace(batch.message.envelope, sender=self._rewrite_sender or "")
        message = replace(batch.message, envelope=envelope)
        return Batch(batch.lane, tuple(replace(delivery, message=message) for delivery in batch.deliveries))

    def _in_order(self) -> list[Endpoint]:
        return sorted(self._endpoints, key=self._down.__contains__)

    def _outcome(self, answer: Answer, delivery: Delivery, endpoint: Endpoint, trail: Trail, *, dsn: bool) -> Outcome:
        if self._ses:
            meant = from_ses(answer, delivery, trail, endpoint.name, endpoint.username)
            if meant is not None:
                return meant
        return from_relay(answer, endpoint.name, trail, dsn_passed_on=dsn)


def endpoints(options: SmtpOptions, clock: Clock) -> list[Endpoint]:
    """Return where to connect and how, in order. Raises: OSError, ssl.SSLError where `ca_file` cannot be used."""
    secure, look_up = _security(options), _look_up(options, clock)
    return [_endpoint(host, secure, options, look_up) for host in options.hosts]


def _security(options: SmtpOptions) -> Security:
    """Raises: OSError, ssl.SSLError where `ca_file` cannot be used."""
    asked = security(options.tls, options.ca_file)
    if options.tls_fingerprints and asked.context is not None:
        asked = replace(asked, context=unverified(), label="fingerprint")
    elif options.tls == "opportunistic" and options.username is not None:
        asked = replace(asked, context=unverified())  # of a login clear text is no alternative
    return replace(asked, name=options.tls_name)


def _look_up(options: SmtpOptions, clock: Clock) -> LookUp | None:
    """Return what asks the name servers named; None where none are. Raises: ValueError for one that is none"""
    if not options.nameservers:
        return None
    from dns.rdatatype import RdataType  # noqa: PLC0415 - with what follows half a second, and few name any

    from sesrelay.transport.exchangers.mx import MailHosts  # noqa: PLC0415

    known, source = MailHosts(clock, options.nameservers), options.source_address
    families = (RdataType.A, RdataType.AAAA) if source is None else (RdataType.AAAA if ":" in source else RdataType.A,)

    async def look_up(host: str) -> list[str]:
        found = await known.addresses(host, families)
        if isinstance(found, list):
            return found
        raise OSError(found.reply.text)

    return look_up


def _endpoint(host: str, secure: Security, options: SmtpOptions, look_up: LookUp | None) -> Endpoint:
    return Endpoint(
        name=host,
        port=options.port,
        address=host,
        security=secure,
        local_hostname=options.local_hostname,
        source_address=options.source_address,
        username=options.username,
        password=options.password,
        token=options.token,
        fingerprints=options.tls_fingerprints,
        look_up=look_up,
        timeouts=options.timeouts,
    )
