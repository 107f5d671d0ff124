"""The way out through Amazon SES: one message to at most 50 recipients a call.

Invariant: one outcome for each delivery, and nothing raised but what the end of the process cuts.
Invariant: after an answer was lost nothing is sent again from here; who repeats it is for the engine to decide.

Source: Amazon SES API references, SendRawEmail (v1) and SendEmail (v2); docs/ses.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from sesrelay.mail import headers
from sesrelay.mail.address import domain_of
from sesrelay.mail.ascii_fields import ascii_address
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.envelope import Message
from sesrelay.mail.filed import Large, opening
from sesrelay.mail.outcome import Deferred, Failed, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy import ses_addressing as addressing
from sesrelay.policy import ses_meaning as meaning
from sesrelay.policy.pace import Governor, Narrowed
from sesrelay.policy.quota import RESERVE_WAIT
from sesrelay.policy.ses_senders import Verified, nobody_knows, without
from sesrelay.policy.ses_shape import Facts, Rules, Shaped
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Clock, Content, Interrupted, Observer
from sesrelay.transport.ses import call
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.ses.attempt import Attempt, Draft, Line
from sesrelay.transport.ses.identities import CANNOT_LIST, Identities, list_remedy
from sesrelay.transport.ses.seam import AwsSession, SesOptions
from sesrelay.transport.shaping import shaped

CONCURRENCY = 32  # calls under way: enough to fill 1,000 a second at 30 ms each
Keep = Callable[[Message, Content], Awaitable[None]]
"""Keeps a copy of a message that SES rejected for what it is."""
_NOT_THEIRS = f"left out the tag {addressing.QUEUE_ID_TAG}, which is reserved for the relay"
_ORDERS: Mapping[str, re.Pattern[str]] = {
    "X-SES-CONFIGURATION-SET": re.compile(""),
    "X-SES-TENANT": re.compile(""),
    "X-SES-MESSAGE-TAGS": re.compile(r"\btags?\b", re.I),
    **dict.fromkeys(("X-SES-SOURCE-ARN", "X-SES-FROM-ARN", "X-SES-RETURN-PATH-ARN"), re.compile(r"\barns?\b", re.I)),
}
"""What trusted fields of a message tell SES, and the words of a refusal that is about it; empty: any."""
_TAG = re.compile(r"\s*([A-Za-z0-9_.@-]+)\s*=\s*([A-Za-z0-9_.@-]+)\s*\Z")


class SesTransport:
    """Implements `sesrelay.seams.Transport`. Nothing is asked of AWS before `start` or the first use."""

    batch_limit = call.RECIPIENTS_MAX
    concurrency = CONCURRENCY

    def __init__(
        self,
        name: str,
        options: SesOptions,
        session: AwsSession,
        accounts: Accounts,
        clock: Clock,
        observer: Observer,
        keep: Keep | None = None,
    ) -> None:
        self.name = name
        self._keep = keep
        self.options = options
        self.failover_after = options.failover_after
        self._accounts = accounts
        self._session = session
        self._account = accounts.attach(name, session, options.endpoint_url, observer)
        self._line = Line(session, self._account, clock, call.fixed_part(options))
        self._account.ledger.governor(options.rate, options.share)
        self._observer = observer
        self._nexthop = f"ses/{session.region}/{session.credential_id}"
        self._may_grow = options.api == "auto" and call.usual(options) == "v1"
        self._rules = Rules(frozenset(map(str.lower, options.trusted_headers)), options.thread_ids, options.rewrite_from)
        wants_identities = options.preflight or options.rewrite_from is not None
        # An identity that another account lends by its ARN is in no list of ours.
        lent = options.source_arn or options.from_arn
        self._identities = (
            Identities(session.identities, clock, self._unlisted, session.last_listed) if wants_identities and not lent else None
        )
        self._verified: Verified = self._identities.verified if self._identities else nobody_knows
        self._started = self._closed = False

    def start(self) -> None:
        """Fetch the account's figures in the background. Runs on: the loop."""
        self._started = True
        self._account.start(self._session, self._accounts)
        if self._identities is not None:
            self._identities.start()

    def refusal(self, sender: str) -> Reply | None:
        """Return the refusal at MAIL of a sender that SES would certainly not take (`preflight`), or None."""
        if self._identities is None or not self.options.preflight or self.options.rewrite_from is not None:
            return None
        return self._identities.refusal(ascii_address(sender) or sender, self._session.region)

    def _unlisted(self, error: Exception) -> None:
        self._observer.trouble(CANNOT_LIST, error, transport=self.name, remedy=list_remedy(error))

    def nexthop(self, recipient: str) -> str:
        return self._nexthop

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        if not self._started:
            self.start()
        ledger = self._account.ledger
        if ledger.reserved_from(recipients, priority, self.options.daily_reserve):
            self._account.reserve_begun()
            return RESERVE_WAIT
        wait = self._governor.take(recipients, now)
        if wait <= 0.0:
            ledger.begun(recipients)
        return wait

    def ended(self, recipients: int) -> None:
        self._account.ledger.ended(recipients)

    def unreserved(self, priority: Priority) -> float:
        return self._account.ledger.unreserved(priority, self.options.daily_reserve)

    def reserved_since(self) -> float | None:
        return self._account.ledger.reserved_since(self.options.daily_reserve)

    def give_back(self, recipients: int) -> None:
        self._governor.give_back(recipients)

    @property
    def _governor(self) -> Governor | Narrowed:
        return self._account.ledger.governor(self.options.rate, self.options.share)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._identities is not None:
                await self._identities.close()
            await self._accounts.detach(self.name, self._account)

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        outcomes: dict[DeliveryId, Outcome] = {}
        attempt: Attempt | None = None
        try:
            exhausted = await self._exhausted(batch)
            if exhausted is not None:
                return batch.for_all(exhausted)
            source = addressing.source(batch.message, self.options.local_domains)
            if not isinstance(source, str):
                return batch.for_all(source)
            by_address, outcomes = _by_address(batch)
            if not by_address:
                return outcomes
            draft = await self._draft(batch, source, content)
            if isinstance(draft, Failed | Deferred):
                outcomes.update((d.id, draft) for group in by_address.values() for d in group)
                return outcomes
            attempt = Attempt(self._line, draft, partial(self._facts, batch, source))
            found = await attempt.send(tuple(by_address))
            if attempt.rejected and self._keep is not None:
                await self._keep(batch.message, content)
            outcomes.update((d.id, found[address]) for address, group in by_address.items() for d in group)
        except asyncio.CancelledError as cut:
            certain = _completed(outcomes, batch, attempt, CUT)
            if not certain:
                raise
            if len(certain) < len(batch):
                raise Interrupted(certain) from cut
            return certain
        except Exception as error:
            self._observer.trouble("sending through SES failed with an unexpected error", error, transport=self.name)
            fault = Deferred(Reply(451, "4.3.0", "Local fault while sending"), Scope.MESSAGE)
            doubt = replace(fault, ambiguous=True)
            outcomes = {delivery.id: doubt for delivery in batch.deliveries} | _completed(outcomes, batch, attempt, fault)
        return outcomes

    async def _exhausted(self, batch: Batch) -> Deferred | None:
        if not self._account.ledger.exhausted:
            return None
        await self._account.refresh()
        if not self._account.ledger.exhausted:
            return None
        found = meaning.QUOTA
        return Deferred(
            Reply(454, f"4.{found.enhanced}", "The account's 24 hour sending quota is used up"),
            found.scope,
            found.reason,
            meaning.remedy(found, self._facts(batch, "")),
            found.retry_after,
        )

    async def _draft(self, batch: Batch, source: str, content: Content) -> Draft | Failed | Deferred:
        try:
            stored = await content.read()
        except Exception as error:
            self._observer.trouble("the content of a message cannot be read", error, transport=self.name, id=batch.message.id)
            return Deferred(Reply(451, "4.3.0", "The stored content cannot be read"), Scope.MESSAGE)
        made = await self._shaped(batch, source, stored)
        if isinstance(made, Failed):
            return made
        raw, changes, source = made.content, made.changes, made.source
        api = call.fitting(self.options, len(raw))
        if isinstance(api, Failed):
            return api
        senders = (source, *batch.message.header_from)
        again = partial(self._shaped, batch, source, stored)
        tags = {**self.options.tags, addressing.QUEUE_ID_TAG: batch.message.id}
        draft = Draft(source, raw, changes, tags, senders, api=api, may_grow=self._may_grow, reshaped=again)
        if not self.options.trusted_headers:  # then no order to SES is left in the header
            return draft
        head = headers.split(opening(raw))[0]
        # Those of a trusted header are among the call's, because tags of the call would replace them.
        return replace(draft, tags=_tags(head) | tags, orders=_orders(head))

    async def _shaped(
        self,
        batch: Batch,
        source: str,
        stored: Large,
        once: frozenset[str] = frozenset(),
        unverified: frozenset[str] = frozenset(),
    ) -> Shaped | Failed:
        """Return the message as SES takes it, with a note of what it may not say."""
        verified = without(self._verified, unverified) if unverified else self._verified
        facts = Facts(source, batch.message.accepted, verified, once)
        made = await shaped(stored, self._rules, facts)
        if isinstance(made, Failed) or not self.options.trusted_headers:
            return made
        forged = addressing.QUEUE_ID_TAG in _tags(headers.split(opening(made.content))[0])
        return replace(made, changes=(*made.changes, _NOT_THEIRS)) if forged else made

    def _facts(self, batch: Batch, source: str) -> dict[str, str]:
        session = self._session
        return {
            "region": session.region,
            "credential_id": session.credential_id,
            "endpoint": self.options.endpoint_url or f"SES in {session.region}",
            "configuration_set": self.options.configuration_set or "(none)",
            "sender_domain": domain_of(source) or domain_of(batch.message.sender) or "the sender's domain",
        }


def _completed(
    outcomes: Mapping[DeliveryId, Outcome], batch: Batch, attempt: Attempt | None, otherwise: Outcome
) -> dict[DeliveryId, Outcome]:
    """Return what is certain of an attempt that did not come to its end.

    That is what is known by now, and `otherwise` for those whom no call was for.
    """
    found = dict(outcomes)
    for one in batch.deliveries:
        address = ascii_address(one.recipient.address) or ""
        if attempt is not None and address in attempt.known:
            found.setdefault(one.id, attempt.known[address])
        elif attempt is None or address not in attempt.on_wire:
            found.setdefault(one.id, otherwise)
    return found


def _by_address(batch: Batch) -> tuple[dict[str, list[Delivery]], dict[DeliveryId, Outcome]]:
    """Return the deliveries by the address that SES is given, and the outcomes of those that have none."""
    groups: dict[str, list[Delivery]] = {}
    unsent: dict[DeliveryId, Outcome] = {}
    for delivery in batch.deliveries:
        address = ascii_address(delivery.recipient.address)
        if address is None:
            unsent[delivery.id] = addressing.NOT_ASCII
        else:
            groups.setdefault(address, []).append(delivery)
    return groups, unsent


def _tags(head: bytes) -> dict[str, str]:
    """Return the tags that the message itself names."""
    pairs = (headers.value_of(head, "X-SES-MESSAGE-TAGS") or "").split(",")
    return {found[1]: found[2] for found in map(_TAG.match, pairs) if found}


def _orders(head: bytes) -> tuple[re.Pattern[str], ...]:
    return tuple(about for name, about in _ORDERS.items() if headers.value_of(head, name) is not None)
