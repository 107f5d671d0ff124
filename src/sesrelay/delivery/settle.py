"""Settling: what the outcomes of one attempt mean, stored in one transaction with the reports they call for.

Invariant: nothing is told to observers or lanes before it is durable, and an outcome that cannot be stored is kept
and tried again, while nothing new is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sesrelay.delivery import reports
from sesrelay.delivery.content import MessageContent
from sesrelay.delivery.gates import Gates
from sesrelay.delivery.ids import Ids
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import fails_over_at, sender_domain_of
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, State
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope
from sesrelay.mail.trace import Event
from sesrelay.mail.value import value
from sesrelay.policy import verdict as policy
from sesrelay.policy.pausing import PROBE_EVERY
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Clock, Observer, Pause, Settlement, SpoolError, Submission

OUTCOME_NAME: dict[type, str] = {Delivered: "delivered", Deferred: "deferred", Failed: "failed", Held: "held"}


@value(frozen=True, slots=True)
class Judged:
    """An attempt's end, not stored yet, and the pauses that it set."""

    batch: Batch
    settlement: Settlement
    news: tuple[Pause, ...]


class Settler:
    """Turns outcomes into verdicts. `snapshot` is asked for each time, so that a reload is followed."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], pauses: Pauses, ids: Ids, clock: Clock, observer: Observer, gates: Gates
    ) -> None:
        self._snapshot = snapshot
        self._gates = gates
        self._pauses = pauses
        self._ids = ids
        self._clock = clock
        self._observer = observer

    async def judge(
        self, batch: Batch, outcomes: Mapping[DeliveryId, Outcome], content: MessageContent, *, began: float, seconds: float
    ) -> Judged:
        """Decide every delivery of `batch`. Units: `began` Unix seconds, `seconds` what the attempt took.

        Where a report is due and the original cannot be read, what would have been reported is held.
        """
        now, chance = self._clock.wall(), self._clock.chance()
        snapshot = self._gates.patient(self._snapshot(), batch, now)
        verdicts: dict[DeliveryId, Verdict] = {}
        news: list[Pause] = []
        for delivery in batch.deliveries:
            outcome = outcomes[delivery.id]
            pause = self._note(batch, outcome, began, now, chance, news)
            verdicts[delivery.id] = policy.decide(
                delivery, outcome, transport=batch.lane.transport, retry=snapshot.retry, now=now, chance=chance, pause=pause
            )
        made: tuple[Submission, ...] = ()
        told: list[Event] = []
        due = reports.due(batch.deliveries, verdicts, outcomes, now)
        if due:
            try:
                made, told = reports.make(due, batch, await content.reported(), snapshot, self._pauses, self._ids)
            except SpoolError as error:
                self._observer.trouble(
                    "a delivery report cannot be created, because the message cannot be read", error, queue_id=batch.message.id
                )
                verdicts = {one: unreportable(verdict) for one, verdict in verdicts.items()}
        events = [
            event
            for delivery in batch.deliveries
            for event in _events(batch, delivery, outcomes[delivery.id], verdicts[delivery.id], now, seconds)
        ]
        return Judged(batch, Settlement(verdicts, (*events, *told), made), tuple(news))

    def announce(self, judged: Judged) -> None:
        """Tell observers what is durable now."""
        for delivery in judged.batch.deliveries:
            self._observer.settled(delivery, judged.settlement.verdicts[delivery.id])
        for report in judged.settlement.reports:
            self._observer.reported(judged.batch.message, report.message)
        for pause in judged.news:
            self._observer.paused(pause)

    def _note(self, batch: Batch, outcome: Outcome, began: float, now: float, chance: float, news: list[Pause]) -> float:
        """Set or lift pauses by `outcome`; return the seconds that its scope waits."""
        if isinstance(outcome, Deferred) and not outcome.ambiguous:
            sender_domain = sender_domain_of(batch.message, self._snapshot())
            if batch.message.report and outcome.scope is Scope.SENDER_DOMAIN:
                return PROBE_EVERY[PauseReason.SUSPENDED]  # says nothing of the domain's other addresses: they go on
            seconds, pause = self._pauses.set(
                outcome, batch.lane, sender_domain, began=began, now=now, schedule=self._snapshot().retry.schedule, chance=chance
            )
            if pause is not None:
                news.append(pause)
            return self._patience(batch, seconds, now)
        if isinstance(outcome, Delivered | Failed) and self._pauses.any_obstacle:
            sender_domain = sender_domain_of(batch.message, self._snapshot())
            for lifted in self._pauses.clear(batch.lane, sender_domain, began=began, sender_too=isinstance(outcome, Delivered)):
                self._observer.resumed(lifted)
        return 0.0

    def _patience(self, batch: Batch, seconds: float, now: float) -> float:
        """Return for how long a batch waits: for the whole pause, or until its route's next transport may have it.

        What is tolerated waits no longer than that either: the pause may come before it is tried again.
        """
        moves = fails_over_at(batch.message, batch.lane, self._snapshot(), self._pauses, otherwise=now)
        return max(min(seconds, moves - now), 0.0)


def unreportable(verdict: Verdict) -> Verdict:
    """Return the verdict where no report can be made: a failure waits for the operator, rather than passing in silence."""
    if verdict.report is None or verdict.state is not State.FAILED:
        return replace(verdict, report=None)
    return replace(verdict, state=State.HELD, reason="unreadable", end=None, report=None)


def _events(batch: Batch, delivery: Delivery, outcome: Outcome, verdict: Verdict, now: float, seconds: float) -> list[Event]:
    to, (transport, nexthop), trail = delivery.recipient.address, batch.lane, outcome.trail
    name = "ambiguous" if isinstance(outcome, Deferred) and outcome.ambiguous else OUTCOME_NAME[type(outcome)]
    common = (to, transport, nexthop)
    events = [
        Event(
            now,
            "attempt",
            *common,
            name,
            str(outcome.reply),
            verdict.remote_id,
            round(seconds, 4),
            trail.tls,
            trail.changes,
            trail.host,
        )
    ]
    if verdict.state is State.DELIVERED:
        events.append(Event(now, "delivered", *common, verdict.end, verdict.reply, verdict.remote_id))
    elif verdict.state is State.FAILED:
        events.append(Event(now, "failed", *common, verdict.end, verdict.reply))
    elif verdict.state is State.HELD:
        events.append(Event(now, "held", *common, verdict.reason, verdict.reply))
    return events
