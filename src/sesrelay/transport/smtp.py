"""The transport to a relay that the configuration names: another mail server, or SES's SMTP endpoint.

Hosts are tried in order. A kept connection that turns out to be stale is replaced by a fresh one, once, and only while
the host had accepted nothing of the transaction.

Invariant: another host is tried only where the former has certainly not taken the message.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.outcome import Deferred, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock, Content, SpoolError
from sesrelay.transport.smtp_answers import Answer, from_relay, most_telling
from sesrelay.transport.smtp_connect import Endpoint, Timeouts, Tls, Unreached, tls_context
from sesrelay.transport.smtp_content import Payload
from sesrelay.transport.smtp_pool import Keeping, Pool
from sesrelay.transport.smtp_ses import from_ses, is_ses
from sesrelay.transport.smtp_session import Session, Transaction

DOWN_FOR = 60.0  # seconds for which a host that could not be reached comes after the others


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """`hosts` in order of preference. `ca_file` replaces the system's issuers. Units: `failover_after` seconds.

    `tls` None: required with a password, else opportunistic. `ses` None: as the host's name says.
    """

    hosts: Sequence[str]
    local_hostname: str
    port: int = 587
    tls: Tls | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    source_address: str | None = None
    ses: bool | None = None
    batch_limit: int = 50  # the most that SES takes in a transaction, and Postfix's default
    concurrency: int = 14  # measured on two cores: with Postfix's 20 acceptance yields to delivery, with 10 delivery starves
    failover_after: float = 600.0
    keeping: Keeping = field(default_factory=Keeping)
    timeouts: Timeouts = field(default_factory=Timeouts)


class SmtpTransport:
    """Implements `sesrelay.seams.Transport`. Raises: OSError, ssl.SSLError where `ca_file` cannot be used."""

    def __init__(self, name: str, options: SmtpOptions, clock: Clock) -> None:
        if not options.hosts:
            raise ValueError(f"transport {name} names no host")
        self.name = name
        self.batch_limit = options.batch_limit
        self.concurrency = options.concurrency
        self.failover_after = options.failover_after
        self._clock = clock
        self._nexthop = f"smtp/{options.hosts[0]}:{options.port}/{options.username or ''}"
        self._ses = options.ses if options.ses is not None else is_ses(options.hosts[0])
        tls: Tls = options.tls or ("required" if options.password else "opportunistic")
        context = tls_context(tls, options.ca_file)
        self._endpoints = [_endpoint(host, tls, context, options) for host in options.hosts]
        self._down: dict[Endpoint, float] = {}
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
        try:
            return await self._deliver(batch, Payload(content, for_ses=self._ses))
        except SpoolError as error:
            text = f"the content could not be read: {error}"
        except Exception as error:  # a fault of ours: whatever it is, the mail waits
            text = f"internal error: {type(error).__name__}"
        deferred = Deferred(Reply(451, "4.3.0", text), Scope.MESSAGE)
        return {delivery.id: deferred for delivery in batch.deliveries}

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
                self._down[endpoint] = self._clock.monotonic() + DOWN_FOR
                continue
            self._down.pop(endpoint, None)
            return {
                delivery.id: self._outcome(done.answers[delivery.id], delivery, endpoint, done.trail, dsn=done.dsn)
                for delivery in batch.deliveries
            }
        return dict.fromkeys((delivery.id for delivery in batch.deliveries), most_telling(refusals))

    async def _via(self, endpoint: Endpoint, batch: Batch, payload: Payload) -> Transaction:
        """Offer the message to one host. Raises: Unreached, where it has accepted nothing of it."""
        kept = self._pool.take(endpoint)
        if kept is not None:
            done = await self._use(kept, batch, payload)
            if done.gone_at_mail is None:
                return done
        done = await self._use(await Session.open(endpoint), batch, payload)
        if done.gone_at_mail is not None:
            raise Unreached(done.gone_at_mail, done.trail.tls)
        return done

    async def _use(self, session: Session, batch: Batch, payload: Payload) -> Transaction:
        try:
            return await session.transact(batch, payload)
        finally:
            self._pool.put(session)

    def _in_order(self) -> list[Endpoint]:
        now = self._clock.monotonic()
        return sorted(self._endpoints, key=lambda endpoint: self._down.get(endpoint, now) > now)

    def _outcome(self, answer: Answer, delivery: Delivery, endpoint: Endpoint, trail: Trail, *, dsn: bool) -> Outcome:
        if self._ses:
            meant = from_ses(answer, delivery, trail)
            if meant is not None:
                return meant
        return from_relay(answer, endpoint.name, trail, dsn_passed_on=dsn)


def _endpoint(host: str, tls: Tls, context: ssl.SSLContext | None, options: SmtpOptions) -> Endpoint:
    return Endpoint(
        name=host,
        port=options.port,
        address=host,
        tls=tls,
        local_hostname=options.local_hostname,
        context=context,
        source_address=options.source_address,
        username=options.username,
        password=options.password,
        timeouts=options.timeouts,
    )
