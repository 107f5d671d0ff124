"""After a crash: attempts that were open are closed as ambiguous before anything new is sent.

Source: ARCHITECTURE.md (what a crash leaves, between B and C).
"""

from __future__ import annotations

from itertools import groupby

from sesrelay.delivery.attempt import Attempter
from sesrelay.delivery.content import MessageContent
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.outcome import Deferred, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock, Spool

INTERRUPTED = Reply(451, "4.4.2", "The relay was interrupted before the answer was recorded; the message may have been sent")
PAGE = 500


async def close_open_attempts(spool: Spool, attempts: Attempter, clock: Clock) -> int:
    """Settle every delivery that is in flight on record as in doubt; return how many. Raises: SpoolError"""
    count = 0
    while page := await spool.open_attempts(PAGE):
        for (_, lane), group in groupby(page, key=lambda delivery: (delivery.id.message, delivery.placement.lane)):
            batch = Batch(lane, tuple(group))
            content = MessageContent(spool, batch.message.id, batch.message.size)
            doubt = Deferred(INTERRUPTED, Scope.MESSAGE, ambiguous=True)
            outcomes: dict[DeliveryId, Outcome] = batch.for_all(doubt)
            attempts.observer.attempted(batch, outcomes, 0.0, None)
            await attempts.settle(batch, outcomes, content, clock.wall(), 0.0)
            count += len(batch)
    return count
