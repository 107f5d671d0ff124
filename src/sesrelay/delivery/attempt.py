"""One attempt from its opening to its settling.

Invariant: no byte leaves before the attempt is on record (commit B), or was by the commit of acceptance (A).
Invariant: an error of ours in a transport counts as ambiguous, so that a message which trips over a bug is held after
three tries and never bounced, and the others flow. Whom it served before that is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sesrelay.delivery.content import MessageContent
from sesrelay.delivery.settle import Settler
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.filed import Large
from sesrelay.mail.outcome import Deferred, Delivered, Held, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy.concurrency import troubled
from sesrelay.policy.retry import AMBIGUOUS_WAIT
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Clock, ContentGone, Interrupted, Observer, Spool, SpoolError, Submission, Transport

OUR_FAULT = Reply(451, "4.3.0", "Internal error in the relay; the message is kept")
STOPPED = Reply(451, "4.4.2", "The relay was stopped before the answer came; the message may have been sent")
UNREADABLE = Reply(451, "4.3.0", "The message's content cannot be read from the store; the message is kept")
CONTENT_GONE = Reply(451, "4.3.0", "The message's content is missing from the store; its envelope is kept")
GONE_REMEDY = "restore queue.db and bodies/ from a backup, or tell the sender and run: sesrelay queue delete ID"
STORE_BACKOFF_MAX = 30.0  # seconds between tries to store an outcome
READ_ALONG = 64 * 1024  # octets of content that the store reads when it opens an attempt; more would hold up whoever waits for it


def retry_at(now: float) -> float:
    """Return when an attempt opened at `now` is due again if the process dies before its outcome is stored."""
    return now + AMBIGUOUS_WAIT


@value(frozen=True, slots=True)
class Settled:
    """An attempt whose outcome is durable. `due`: when those that are queued again are due, an operator's wish included;
    `taken`: the next hop took the message for somebody; `trouble`: it did not serve, whatever the message was.
    """

    batch: Batch
    reports: tuple[Submission, ...]
    due: Mapping[DeliveryId, float]
    outcomes: Mapping[DeliveryId, Outcome]
    taken: bool
    trouble: bool = False

    @property
    def accepted(self) -> int:
        """How many deliveries the next hop took, or may have taken."""
        said = self.outcomes.values()
        return sum(isinstance(one, Delivered) or (isinstance(one, Deferred) and one.ambiguous) for one in said)


@dataclass(frozen=True, slots=True)
class Attempter:
    """Runs attempts. `stall` is told of store trouble, and that it is over."""

    spool: Spool
    settler: Settler
    clock: Clock
    observer: Observer
    stall: Callable[[bool], None]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def open(self, batch: Batch, content: Large | None) -> tuple[Batch | None, Large | None]:
        """Put the attempt on record. Return what may be sent, None where an operator took it all away meanwhile, and the content
        where it is at hand.

        Raises: SpoolError
        """
        due, size = retry_at(self.clock.wall()), batch.message.size
        read = size if content is None and size <= READ_ALONG else None
        opened = await self.spool.open_attempt([delivery.id for delivery in batch.deliveries], due, batch.lane, read=read)
        deliveries = tuple(delivery.sending(batch.lane, due) for delivery in batch.deliveries if delivery.id in opened.ids)
        return Batch(batch.lane, deliveries) if deliveries else None, opened.content if content is None else content

    async def run(self, batch: Batch, transport: Transport, fresh: Large | None, wanted: Callable[[], bool]) -> Settled:
        """Send an opened batch and settle it; returns once the outcome is durable. Raises nothing but CancelledError.

        `wanted`: whether anything waits for the slot, asked once the outcome is there.
        """
        content = MessageContent(self.spool, batch.message.id, batch.message.size, fresh)
        began, start = self.clock.wall(), self.clock.monotonic()
        outcomes = await self._deliver(batch, transport, content)
        seconds = self.clock.monotonic() - start
        one = batch.deliveries[0]
        untried = one.attempts == 1 and one.reply is None  # what failed for all alike is not counted as an attempt, but has a reply
        first = max(began - batch.message.began, 0.0) if untried else None
        self.observer.attempted(batch, outcomes, seconds, first)
        return await self.settle(batch, outcomes, content, began, seconds, patient=not wanted())

    async def settle(
        self,
        batch: Batch,
        outcomes: Mapping[DeliveryId, Outcome],
        content: MessageContent,
        began: float,
        seconds: float,
        *,
        patient: bool = False,
    ) -> Settled:
        """Store what became of an attempt, however long the store needs to come back. `patient`: see `Spool.settle`."""
        wait, judged = 1.0, None
        while True:
            try:
                if judged is None:
                    judged = await self.settler.judge(batch, outcomes, content, began=began, seconds=seconds)
                due = await self.spool.settle(judged.settlement, patient=patient)
            except SpoolError as error:
                self.stall(True)
                self.observer.trouble(
                    "the result of an attempt cannot be stored; sending has stopped until it can be stored",
                    error,
                    queue_id=batch.message.id,
                )
                await self.pause(wait)
                wait = min(wait * 2.0, STORE_BACKOFF_MAX)
                continue
            self.stall(False)
            self.settler.announce(judged)
            said = outcomes.values()
            taken = any(isinstance(one, Delivered) for one in said)
            return Settled(batch, judged.settlement.reports, due, outcomes, taken, troubled(said))

    async def _deliver(self, batch: Batch, transport: Transport, content: MessageContent) -> Mapping[DeliveryId, Outcome]:
        try:
            if content.fresh is None and transport.name:  # not for `Nowhere`, which sends nothing
                await content.read()
        except asyncio.CancelledError:
            return batch.for_all(CUT)
        except ContentGone as error:
            self.observer.trouble("content is lost", error, queue_id=batch.message.id)
            return batch.for_all(Held(CONTENT_GONE, "content_lost", GONE_REMEDY))
        except SpoolError as error:
            self.observer.trouble("content cannot be read", error, queue_id=batch.message.id)
            return batch.for_all(Deferred(UNREADABLE, Scope.MESSAGE))
        known: Mapping[DeliveryId, Outcome] = {}
        try:
            known = await transport.deliver(batch, content)
            missing = [delivery.id for delivery in batch.deliveries if delivery.id not in known]
            if not missing:
                return known
            fault: BaseException = RuntimeError(f"transport {transport.name} returned no outcome for {missing}")
        except Interrupted as error:
            known, fault = error.known, error.__cause__ or error
        except Exception as error:
            fault = error
        cut = isinstance(fault, asyncio.CancelledError)
        if not cut:
            self.observer.trouble("a transport failed with an unexpected error", fault, queue_id=batch.message.id)
        doubt = Deferred(STOPPED if cut else OUR_FAULT, Scope.MESSAGE, ambiguous=True)
        return {delivery.id: known.get(delivery.id, doubt) for delivery in batch.deliveries}
