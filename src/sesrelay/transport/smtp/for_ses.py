"""What goes to SES's SMTP endpoint is made fit for SES first, as for its API, and once more by what a refusal told.

Invariant: an outcome has the receipts of all that was changed for it.
Invariant: a message is sent a second time only where it was certainly refused, for its senders or for a header that stands
twice, and is another one now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.filed import Large
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, Scope
from sesrelay.policy import ses_addressing
from sesrelay.policy.ses_senders import Verified, nobody_knows, without
from sesrelay.policy.ses_shape import Facts, Rules, Shaped
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content, Interrupted, SpoolError
from sesrelay.transport.client.content import unreadable
from sesrelay.transport.shaping import shaped
from sesrelay.transport.smtp.ses_answers import duplicate_headers, unverified_senders, with_source

Send = Callable[[Batch, Content], Awaitable[Mapping[DeliveryId, Outcome]]]


@dataclass(frozen=True, slots=True)
class Shaping:
    """How mail is made fit. `verified`: who may send, as far as that is known; `local_domains`: envelope senders there are stood
    in for by the header From.
    """

    rules: Rules = Rules()  # noqa: RUF009 - frozen
    verified: Verified = nobody_knows
    local_domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ready:
    """Implements `seams.Content` by what is at hand."""

    data: Large

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self) -> Large:
        return self.data


async def shaped_first(batch: Batch, content: Content, send: Send, shaping: Shaping) -> Mapping[DeliveryId, Outcome]:
    """Send `content` as SES takes it. Raises: as `Transport.deliver`."""
    source = ses_addressing.source(batch.message, shaping.local_domains)
    if not isinstance(source, str):
        return batch.for_all(source)
    try:
        stored = await content.read()
        made = await shaped(stored, shaping.rules, Facts(source, batch.message.accepted, shaping.verified))
    except asyncio.CancelledError:
        return batch.for_all(CUT)
    except SpoolError as error:
        return batch.for_all(Deferred(unreadable(error), Scope.MESSAGE))
    if isinstance(made, Failed):
        return batch.for_all(made)
    outcomes = await _sent(batch, made, send)
    twice = duplicate_headers(outcomes.values(), made.content)
    refused = unverified_senders(outcomes.values()) if shaping.rules.rewrite_from is not None else frozenset[str]()
    if (twice or refused) and not any(map(_may_have_gone, outcomes.values())):
        facts = Facts(source, batch.message.accepted, without(shaping.verified, refused), twice)
        try:
            again = await shaped(stored, shaping.rules, facts)
        except asyncio.CancelledError:
            return batch.for_all(CUT)
        if isinstance(again, Shaped) and (again.content, again.source) != (made.content, made.source):
            return await _sent(batch, again, send)
    return outcomes


async def _sent(batch: Batch, made: Shaped, send: Send) -> Mapping[DeliveryId, Outcome]:
    """Send what was made, and return outcomes with the receipts of that. Raises: as `send`."""
    try:
        outcomes = await send(with_source(batch, made.source), Ready(made.content))
    except Interrupted as error:
        raise Interrupted(_with_receipts(error.known, made.changes)) from error.__cause__
    return _with_receipts(outcomes, made.changes)


def _may_have_gone(outcome: Outcome) -> bool:
    return isinstance(outcome, Delivered) or (isinstance(outcome, Deferred) and outcome.ambiguous)


def _with_receipts(outcomes: Mapping[DeliveryId, Outcome], changes: tuple[str, ...]) -> Mapping[DeliveryId, Outcome]:
    if not changes:
        return outcomes
    return {of: replace(one, trail=replace(one.trail, changes=changes + one.trail.changes)) for of, one in outcomes.items()}
