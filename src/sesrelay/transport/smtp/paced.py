"""A relay by SMTP that has a pace: SES's SMTP endpoint, which counts as its API does, or any relay with a `rate`.

What SES says of one address it says of the whole message, so the bad one is found by offering the message again without
it, or to halves, as `policy.splitting` has it.

Invariant: an address is offered again only after an answer that certainly refused it.
Invariant: one outcome for each delivery; a fault of ours puts nobody in doubt who was served before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sesrelay.mail.address import comparable
from sesrelay.mail.ascii_fields import ascii_address
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.envelope import Message
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.quota import RESERVE_WAIT
from sesrelay.policy.ses_addressing import plain_domain
from sesrelay.policy.ses_words import addresses_named
from sesrelay.policy.splitting import Blamed, Splitting
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content, Interrupted, Transport
from sesrelay.transport.smtp.ses_answers import about_an_address, of_form, rejected, wants_others

_Outcomes = Mapping[DeliveryId, Outcome]
_Split = Splitting[Delivery, _Outcomes]
_UNTRIED = Reply(454, "4.4.2", "Not attempted, because the relay did not answer for other messages")


class Pace(Protocol):
    def take(self, recipients: int, now: float) -> float: ...
    def give_back(self, recipients: int) -> None: ...


class Identities(Protocol):
    """Who is verified in the account, kept at hand."""

    def start(self) -> None: ...
    async def close(self) -> None: ...
    def refusal(self, address: str, region: str) -> Reply | None: ...


class Ledger(Protocol):
    """What the ways to one account share (decision 22)."""

    def governor(self, rate: float | str, share: float) -> Pace: ...
    def reserved_from(self, recipients: int, priority: Priority, reserve: float) -> bool: ...
    def begun(self, recipients: int) -> None: ...
    def ended(self, recipients: int) -> None: ...
    def unreserved(self, priority: Priority, reserve: float) -> float: ...
    def reserved_since(self, reserve: float) -> float | None: ...
    def throttled(self) -> None: ...
    def spent(self, recipients: int) -> None: ...


@dataclass(slots=True)
class PacedSmtp:
    """Implements `sesrelay.seams.Transport` over another one. `rate`: recipients a second, or `auto`: the account's.

    `region`: the relay is SES's there, and its texts are read; None: another's. `share`, `reserve`: parts of 1, of the account's
    rate and of its 24 hours. `keep` gets what SES rejects for what it is. `preflight`: refuse at MAIL whom `identities` do not
    have.
    """

    inner: Transport
    ledger: Ledger
    rate: float | str
    region: str | None
    share: float = 1.0
    reserve: float = 0.1
    identities: Identities | None = None
    preflight: bool = False
    keep: Callable[[Message, Content], Awaitable[None]] | None = None

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def batch_limit(self) -> int:
        return self.inner.batch_limit

    @property
    def concurrency(self) -> int:
        return self.inner.concurrency

    @property
    def failover_after(self) -> float:
        return self.inner.failover_after

    def start(self) -> None:
        self.inner.start()
        if self.identities is not None:
            self.identities.start()

    def refusal(self, sender: str) -> Reply | None:
        """Return the refusal at MAIL of a sender that SES would certainly not take (`preflight`), or None."""
        if self.identities is None or not self.preflight or self.region is None:
            return None
        return self.identities.refusal(ascii_address(sender) or sender, self.region)

    def nexthop(self, recipient: str) -> str:
        return self.inner.nexthop(recipient)

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        if self.ledger.reserved_from(recipients, priority, self.reserve):
            return RESERVE_WAIT
        wait = self.ledger.governor(self.rate, self.share).take(recipients, now)
        if wait <= 0.0:
            self.ledger.begun(recipients)
        return wait

    def ended(self, recipients: int) -> None:
        self.ledger.ended(recipients)

    def unreserved(self, priority: Priority) -> float:
        return self.ledger.unreserved(priority, self.reserve)

    def reserved_since(self) -> float | None:
        return self.ledger.reserved_since(self.reserve)

    def give_back(self, recipients: int) -> None:
        self.ledger.governor(self.rate, self.share).give_back(recipients)

    async def close(self) -> None:
        if self.identities is not None:
            await self.identities.close()
        await self.inner.close()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        known: dict[DeliveryId, Outcome] = {}
        try:
            await self._deliver(batch, content, known)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, Interrupted):
                self._note(error.known.values())
                known.update(error.known)
            elif isinstance(error, asyncio.CancelledError) and not known:
                raise
            raise Interrupted(known) from _cause(error)
        return known

    async def _deliver(self, batch: Batch, content: Content, known: dict[DeliveryId, Outcome]) -> None:
        """Fill `known`; where it raises, that has what is certain nevertheless."""
        split: _Split = Splitting(batch.deliveries, _plain)
        while (group := split.next()) is not None:
            try:
                await self._offer(Batch(batch.lane, group), content, split, known)
            except (Exception, asyncio.CancelledError) as error:
                waiting = split.stop()
                for delivery in (*group, *waiting):  # who was refused so far was offered again, or was to be
                    if not isinstance(known.get(delivery.id), Delivered):
                        known.pop(delivery.id, None)
                if isinstance(_cause(error), asyncio.CancelledError):
                    known.update((delivery.id, CUT) for delivery in waiting)
                raise

    async def _offer(self, batch: Batch, content: Content, split: _Split, known: dict[DeliveryId, Outcome]) -> None:
        """Offer the message to a group of those it is for, and say who is next."""
        outcomes = await self.inner.deliver(batch, content)
        self._note(outcomes.values())
        known.update(outcomes)
        if self.region is None:
            return
        if self.keep is not None and rejected(outcomes.values()):
            await self.keep(batch.message, content)
        if _stops(outcomes.values()):
            known.update((delivery.id, _untried(outcomes.values())) for delivery in split.stop())
        else:
            known.update(_judged(split, batch.deliveries, outcomes))

    def _note(self, outcomes: Iterable[Outcome]) -> None:
        taken = 0
        throttled = False
        for outcome in outcomes:
            taken += isinstance(outcome, Delivered)
            throttled = throttled or (isinstance(outcome, Deferred) and outcome.reason is PauseReason.THROTTLED)
        if taken:
            self.ledger.spent(taken)
        if throttled:
            self.ledger.throttled()


def _cause(error: BaseException) -> BaseException:
    """Return what came between. Not the cause of all else: of a time-out that is a cancellation, though nothing was cut."""
    return (isinstance(error, Interrupted) and error.__cause__) or error


def _judged(split: _Split, group: tuple[Delivery, ...], outcomes: _Outcomes) -> dict[DeliveryId, Outcome]:
    """Say whom to offer the message again; return what is certain by now beside `outcomes`."""
    found = outcomes.values()
    others = tuple(delivery for delivery in group if wants_others(outcomes[delivery.id]))
    if others and len(others) < len(group):
        return _own(split.again(others))
    if any(isinstance(outcome, Delivered) for outcome in found):
        return _own(split.taken())
    # Whoever was refused at RCPT has ended already; the others were refused with the message.
    group = tuple(delivery for delivery in group if not _refused(outcomes[delivery.id], Scope.RECIPIENT))
    first = outcomes[group[0].id] if group else None
    if not isinstance(first, Failed) or not all(_refused(outcomes[delivery.id], Scope.MESSAGE) for delivery in group):
        return _own(split.again(()))
    named = addresses_named(first.reply.text)
    if not about_an_address(first) or comparable(group[0].message.sender) in named:
        return dict.fromkeys((delivery.id for delivery in split.stop()), first)
    bad = tuple(delivery for delivery in group if comparable(delivery.recipient.address) in named)
    if bad:
        decided = split.again(tuple(delivery for delivery in group if delivery not in bad))
        return _own([Blamed(bad, outcomes, message=False), *decided])
    return _own(split.refused(group, outcomes, of_form=of_form(first)))


def _refused(outcome: Outcome, scope: Scope) -> bool:
    return isinstance(outcome, Failed) and outcome.scope is scope


def _own(decided: Iterable[Blamed[Delivery, _Outcomes]]) -> dict[DeliveryId, Outcome]:
    """Return the outcomes of those who were refused for their own address."""
    own = ((delivery.id, blamed.why[delivery.id]) for blamed in decided if not blamed.message for delivery in blamed.members)
    return {key: replace(outcome, scope=Scope.RECIPIENT) for key, outcome in own if isinstance(outcome, Failed)}


def _plain(delivery: Delivery) -> str:
    return plain_domain(delivery.recipient.address)


def _stops(outcomes: Iterable[Outcome]) -> bool:
    """Tell whether what happened keeps the rest from being tried: a doubt, or an obstacle wider than the message."""
    return any(isinstance(outcome, Deferred) and (outcome.ambiguous or outcome.reason is not None) for outcome in outcomes)


def _untried(outcomes: Iterable[Outcome]) -> Outcome:
    wide = next((outcome for outcome in outcomes if isinstance(outcome, Deferred) and outcome.reason is not None), None)
    return wide if wide is not None and not wide.ambiguous else Deferred(_UNTRIED, Scope.MESSAGE)
