"""What time alone calls for: warnings and the end of patience for mail behind a pause, and forgetting old history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sesrelay.delivery import reports
from sesrelay.delivery.placing import sender_domain_of
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.delivery.settle import unreportable
from sesrelay.mail.delivery import Batch, Delivery, State
from sesrelay.mail.trace import Event
from sesrelay.policy import verdict as policy
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Clock, ContentGone, Observer, Settlement, Spool, SpoolError, Submission, Superseded

EVERY = 60.0  # seconds
PAGE = 500


@dataclass(slots=True)
class Housekeeping:
    """Runs beside the scheduler for as long as the daemon does."""

    spool: Spool
    scheduler: Scheduler
    clock: Clock
    observer: Observer
    every: float = field(default=EVERY)

    async def run(self) -> None:
        """Sweep for ever; store trouble is told and the next sweep tries again. Ends by cancellation."""
        while True:
            await asyncio.sleep(self.every)
            try:
                await self.sweep()
            except SpoolError as error:
                self.observer.trouble("housekeeping could not read or write the queue", error)

    async def sweep(self) -> None:
        """Do all of it once. Raises: SpoolError"""
        self.scheduler.note_shut()
        await self.scheduler.shelve_paused()
        await self.scheduler.refresh()  # lanes wake by events; this is the net beneath them
        for pause in self.scheduler.pauses.drop_stale(self.clock.wall()):
            self.observer.resumed(pause)
        await self._overdue()
        now = self.clock.wall()
        while await self.spool.purge(now - self.scheduler.snapshot.keep_delivered, now, PAGE) == PAGE:
            continue

    async def _overdue(self) -> None:
        """Hold or warn about what is old and waits behind a pause: no attempt will do it."""
        retry = self.scheduler.snapshot.retry
        patience = min(retry.max_age, retry.delay_warning or retry.max_age)
        after = None
        while page := await self.spool.aged(self.clock.wall() - patience, after, PAGE):
            for delivery in page:
                if self._paused(delivery):
                    await self._settle_overdue(delivery)
            after = page[-1].id

    def _paused(self, delivery: Delivery) -> bool:
        sender_domain = sender_domain_of(delivery.message, self.scheduler.snapshot)
        return self.scheduler.pauses.since(delivery.placement.lane, sender_domain) is not None

    async def _settle_overdue(self, delivery: Delivery) -> None:
        now, batch = self.clock.wall(), Batch(delivery.placement.lane, (delivery,))
        snapshot = self.scheduler.gates.patient(self.scheduler.snapshot, batch, now)
        verdict = policy.overdue(delivery, snapshot.retry, now)
        if verdict is None:
            return
        made: tuple[Submission, ...] = ()
        told: list[Event] = []
        due = reports.due(batch.deliveries, {delivery.id: verdict}, {}, None)
        if due:
            try:
                original = await self.spool.content(delivery.message.id)
                made, told = reports.make(due, batch, original, snapshot, self.scheduler.pauses, self.scheduler.ids)
            except ContentGone as error:  # no other's turn is lost for that
                self.observer.trouble(
                    "a delivery report cannot be created, because the message is lost", error, queue_id=delivery.message.id
                )
                verdict = unreportable(verdict)
        events = (*_end(delivery, verdict, now), *told)
        try:
            await self.spool.settle(Settlement({delivery.id: verdict}, events, made, attempted=False))
        except Superseded:
            return  # an attempt or an operator was quicker
        self.observer.settled(delivery, verdict)
        for report in made:
            self.observer.reported(delivery.message, report.message)
            self.scheduler.stored(report.deliveries[0].placement.lane)


def _end(delivery: Delivery, verdict: Verdict, now: float) -> tuple[Event, ...]:
    """Return what the trace is told of a verdict; nothing of a delivery that waits on."""
    if verdict.state is State.HELD:
        return (Event(now, "held", delivery.recipient.address, outcome=verdict.reason, reply=verdict.reply),)
    if verdict.state is State.FAILED:
        return (Event(now, "failed", delivery.recipient.address, outcome=verdict.end, reply=verdict.reply),)
    return ()
