"""What goes to SES's SMTP endpoint is made fit for SES first, as for its API.

Invariant: an outcome has the receipts of all that was changed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.outcome import Deferred, Failed, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.ses_shape import Facts, Rules, shape
from sesrelay.seams import Content, SpoolError

OFF_LOOP = 128 * 1024  # octets from which encoding anew may take longer than a hop to a thread
Send = Callable[[Batch, Content], Awaitable[Mapping[DeliveryId, Outcome]]]


@dataclass(frozen=True, slots=True)
class Ready:
    """Implements `seams.Content` by what is at hand."""

    data: Canonical

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self) -> Canonical:
        return self.data


async def shaped_first(batch: Batch, content: Content, send: Send) -> Mapping[DeliveryId, Outcome]:
    """Send `content` as SES takes it. Raises nothing but CancelledError, if `send` does not."""
    message, ids = batch.message, [delivery.id for delivery in batch.deliveries]
    facts = Facts(message.sender or next(iter(message.header_from), ""), message.accepted)
    try:
        stored = await content.read()
        made = await asyncio.to_thread(shape, stored, Rules(), facts) if len(stored) > OFF_LOOP else shape(stored, Rules(), facts)
    except SpoolError as error:
        return dict.fromkeys(ids, _later(f"the content could not be read: {error}"))
    except Exception as error:  # a fault of ours: whatever it is, the mail waits
        return dict.fromkeys(ids, _later(f"internal error: {type(error).__name__}"))
    if isinstance(made, Failed):
        return dict.fromkeys(ids, made)
    outcomes = await send(batch, Ready(made.content))
    if not made.changes:
        return outcomes
    return {
        of: replace(outcome, trail=replace(outcome.trail, changes=made.changes + outcome.trail.changes))
        for of, outcome in outcomes.items()
    }


def _later(text: str) -> Deferred:
    return Deferred(Reply(451, "4.3.0", text), Scope.MESSAGE)
