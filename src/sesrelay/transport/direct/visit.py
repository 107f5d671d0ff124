"""A visit to one mail host of a domain, which may have several addresses: a kept connection, or the first that serves.

Invariant: the next address is tried only where the former has certainly not taken the message.
Invariant: whom a host refused for good before it went away is refused: a host that leaves after so many of them would never
hear of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.outcome import Outcome
from sesrelay.transport.client.answers import Stage, from_mail_host
from sesrelay.transport.client.connect import Endpoint, Unreached, cannot_connect
from sesrelay.transport.client.content import Payload
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.client.exchange import converse, over_kept
from sesrelay.transport.client.pool import Pool
from sesrelay.transport.client.session import Session, Transaction
from sesrelay.transport.net.reach import Reached, Unreachable, reach


@dataclass
class Visit:
    """`endpoints`: the host's addresses, best first. `refusals`: what to make of those that did not serve; `tried` so many.

    `batch`: those whom it is about, less those who are `settled`. `silent`: addresses that could not be reached, by whatever name.
    """

    pool: Pool
    dead: DeadHosts
    endpoints: Sequence[Endpoint]
    batch: Batch
    settled: dict[DeliveryId, Outcome] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    refusals: list[Outcome] = field(default_factory=list)
    tried: int = 0

    async def offer(self, payload: Payload, *, stagger: float | None) -> Transaction | None:
        """Return what the host said, or None where the next host is to be asked. Raises: SpoolError."""
        waiting = {endpoint.address: endpoint for endpoint in self.endpoints}
        for endpoint in self.endpoints:
            done = await over_kept(self.pool, endpoint, self.batch, payload)
            if done is not None and not self._elsewhere(done):
                return done
            if done is not None:
                del waiting[endpoint.address]
        while waiting:
            reached = await self._reach(waiting, stagger)
            if reached is None:
                return None
            done = await self._through(waiting.pop(reached.address), reached, payload)
            if done is not None and not self._elsewhere(done):
                return done
        return None

    async def _reach(self, waiting: dict[str, Endpoint], stagger: float | None) -> Reached | None:
        """Connect to one of those that wait, and take out those that do not answer."""
        one = next(iter(waiting.values()))
        reached: Reached | None = None
        try:
            reached = await reach(list(waiting), one.port, source=one.source_address, timeout=one.timeouts.connect, stagger=stagger)
            failed = reached.failed
        except Unreachable as error:
            failed = error.failed
        for address, why in failed.items():
            self._unreached(waiting.pop(address), why)
        return reached

    def _unreached(self, endpoint: Endpoint, why: str) -> None:
        self.tried += 1
        self.dead.mark(endpoint.address)
        self.silent.add(endpoint.address)
        error = cannot_connect(endpoint, why)
        self.refusals.append(from_mail_host(error.answer, error.trail))

    async def _through(self, endpoint: Endpoint, reached: Reached, payload: Payload) -> Transaction | None:
        """Offer the message over the connection. Raises: SpoolError."""
        self.tried += 1
        try:
            session = await Session.open(endpoint, reached.sock)
        except Unreached as error:
            if error.answer.lost and error.answer.stage is Stage.CONNECT:
                self.dead.mark(endpoint.address)
            self.refusals.append(from_mail_host(error.answer, error.trail))
            return None
        self.dead.forget(endpoint.address)
        return await converse(self.pool, session, self.batch, payload)

    def _elsewhere(self, done: Transaction) -> bool:
        """Tell whether another address or host is to be asked: this one refused at MAIL, or went away before the final dot."""
        if any(answer.stage is Stage.DOT for answer in done.answers.values()):
            return False
        for answer in done.answers.values():
            if answer.stage is Stage.MAIL or answer.service_gone:
                self.refusals.append(from_mail_host(answer, done.trail))
                self._settle(done)
                return True
        return False

    def _settle(self, done: Transaction) -> None:
        """Leave out those whom the host refused for good, each for himself."""
        for delivery, answer in done.answers.items():
            if answer.stage is Stage.RCPT and answer.reply.permanent and not answer.service_gone:
                self.settled[delivery] = from_mail_host(answer, done.trail)
        if self.settled:
            left = tuple(one for one in self.batch.deliveries if one.id not in self.settled)
            self.batch = Batch(self.batch.lane, left)
