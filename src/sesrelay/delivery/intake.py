"""Acceptance: the header is read, the message placed and made durable, and what can go at once goes at once.

Where the lane has a free slot and tokens at this very moment, the commit of acceptance opens the attempt as well
(A carries B): one commit fewer, and what can be in doubt after a crash stays bounded by the slots.

Invariant: a 250 means that the message is on stable storage; every fault of ours is a 4xx and stores nothing.

Implements `seams.Intake`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sesrelay.delivery import placing
from sesrelay.delivery.attempt import retry_at
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.delivery.storms import StormGuard
from sesrelay.mail import headers, received
from sesrelay.mail.authors import authors
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, State
from sesrelay.mail.envelope import Envelope, Message, Origin
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.headers import NO_MARKS, Facts
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.reply import Reply
from sesrelay.mail.trace import Event
from sesrelay.policy.admission import FROM_TOO_LARGE, HEADER_MAX, HEADER_TOO_LARGE, HOPS_MAX, LOOP
from sesrelay.policy.batching import batches
from sesrelay.policy.precedence import priority_by_header
from sesrelay.policy.routing import REJECTED, RouteRule
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.policy.session_rules import NO_RULES, SessionRules
from sesrelay.policy.storm import Kind
from sesrelay.seams import Clock, NoSpace, Observer, Spool, SpoolError, Submission, Transport

Offered = tuple[Batch, Transport]
"""A batch whose attempt is opened by its acceptance, and the way out that has a slot for it."""

TRY_LATER = Reply(451, "4.3.0", "The queue cannot store mail right now, try again later")
NO_SPACE = Reply(452, "4.3.1", "The queue's disk is full, try again later")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Turns what clients hand over into stored messages. Sessions may outlive a reload: the snapshot is asked for each time."""

    spool: Spool
    scheduler: Scheduler
    clock: Clock
    observer: Observer
    storms: StormGuard = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "storms", StormGuard(self.spool, self.scheduler, self.observer))

    def now(self) -> float:
        return self.clock.wall()

    def check_sender(self, envelope_sender: str, origin: Origin, rules: SessionRules = NO_RULES) -> Reply | None:
        refusal = rules.senders.check_envelope(envelope_sender, origin)
        if refusal is not None:
            return refusal
        snapshot = self.scheduler.snapshot
        routing = rules.routing or snapshot.routing
        if not envelope_sender or routing.routing_address(envelope_sender, ("\0",)) == "\0":
            return None  # the header From decides, and is not known yet
        rule = routing.match(envelope_sender)
        return REJECTED if rule.reject else snapshot.preflight(rule, (envelope_sender,))

    async def submit(
        self,
        envelope: Envelope,
        content: Large,
        origin: Origin,
        changes: tuple[str, ...] = (),
        rules: SessionRules = NO_RULES,
    ) -> Reply:
        start, now, snapshot = self.clock.monotonic(), self.clock.wall(), self.scheduler.snapshot
        text, removed = headers.without_envelope_line(Canonical(content.head) if isinstance(content, Filed) else content)
        changes += removed
        end = headers.head_length(text)
        if end > HEADER_MAX:
            return HEADER_TOO_LARGE
        read = _read(text[:end], envelope.sender, snapshot.local.domain)
        if isinstance(read, Reply):
            return read
        head, facts, made = read
        changes += made
        if rules.senders:
            refusal = rules.senders.check_header(facts.header_from, authors(head, snapshot.local.domain), envelope.sender, origin)
            if refusal is not None:
                return refusal
        rule = snapshot.routing.route(envelope.sender, facts.header_from)
        rejects = rule.reject
        if rules.routing is not None and rules.routing is not snapshot.routing:
            rejects = rules.routing.route(envelope.sender, facts.header_from).reject
        if rejects:
            return REJECTED
        if snapshot.preflights:
            refusal = snapshot.preflight(rule, facts.header_from)
            if refusal is not None:
                return refusal
        if facts.has_private:
            head, removed = headers.without_private(head)
            changes += removed
        new_id = self.scheduler.ids.new()
        trace = received.line(envelope, origin, hostname=snapshot.hostname, queue_id=new_id, at=now)
        text = headers.with_head(text, end, trace + head)
        content = content.with_head(text) if isinstance(content, Filed) else text
        priority = None
        if facts.marks is not NO_MARKS or rule.priority_header:
            trusted = headers.value_of(head, rule.priority_header) if rule.priority_header else None
            priority = priority_by_header(facts.marks, trusted)
        message = Message(
            new_id, envelope, origin, len(content), now, facts.header_from, facts.message_id, facts.subject, None, changes, priority
        )  # fmt: skip
        if rule.limits.storm_limit is not None:
            try:
                kind = await self.storms.one_too_many(message, content, rule.limits.storm_limit, now)
            except SpoolError as error:
                return self._refused(error)
            if kind is not None:
                return await self._fold(message, content, rule, snapshot, kind, now, start)
        return await self._store(message, content, rule, snapshot, now, start)

    async def _fold(
        self, message: Message, content: Large, rule: RouteRule, snapshot: Snapshot, kind: Kind, now: float, start: float
    ) -> Reply:
        """Accept a message that is one too many of its kind: it ends, and a digest tells of it."""
        try:
            await self.storms.fold(message, content, rule, self._place(message, rule, snapshot, now), kind, now)
        except SpoolError as error:
            return self._refused(error)
        self.observer.accepted(message, self.clock.monotonic() - start)
        return Reply(250, "2.0.0", f"Ok: queued as {message.id}")

    def _refused(self, error: SpoolError) -> Reply:
        self.observer.trouble("a message cannot be stored; its client was told to try again", error)
        return NO_SPACE if isinstance(error, NoSpace) else TRY_LATER

    async def _store(
        self, message: Message, content: Large, rule: RouteRule, snapshot: Snapshot, now: float, start: float
    ) -> Reply:
        offered, waiting, held = self._sort(self._place(message, rule, snapshot, now), now)
        claimed = bool(waiting) and message.envelope.release is None and self.scheduler.has_room(waiting)
        batches_made = (*(batch for batch, _ in offered), *waiting)
        deliveries = tuple(delivery for batch in batches_made for delivery in batch.deliveries) + tuple(held)
        events = _events(message, rule, held, now)
        try:
            await self.spool.accept(Submission(message, content, deliveries, events), claimed=claimed)
        except SpoolError as error:
            for batch, way in offered:
                self.scheduler.withdraw(batch, way)
            return self._refused(error)
        self.observer.accepted(message, self.clock.monotonic() - start)
        for batch, way in offered:
            self.scheduler.launch(batch, content, way)
        for batch in waiting:
            if claimed:
                self.scheduler.enqueue(batch, content)
            else:
                self.scheduler.stored(batch.lane, batch.deliveries[0].placement.stream, batch.deliveries[0].due)
        return Reply(250, "2.0.0", f"Ok: queued as {message.id}")

    def _place(self, message: Message, rule: RouteRule, snapshot: Snapshot, now: float) -> list[Delivery]:
        pauses, due, reason = self.scheduler.pauses, now, None
        if message.envelope.release is not None:
            due, reason = max(now, message.envelope.release), SCHEDULED
        return [
            Delivery(
                DeliveryId(message.id, n),
                message,
                recipient,
                placing.place(message, recipient.address, rule, snapshot, pauses, now),
                due=due,
                reason=reason,
            )
            for n, recipient in enumerate(message.envelope.recipients)
        ]

    def _sort(self, deliveries: Sequence[Delivery], now: float) -> tuple[list[Offered], list[Batch], list[Delivery]]:
        """Split into batches whose attempt begins at once, batches that wait, and deliveries held from the start."""
        held = [
            replace(delivery, state=State.HELD, reason=reason)
            for delivery in deliveries
            if (reason := delivery.recipient.hold or self.spool.standing_hold(delivery))
        ]
        if held:
            kept = {delivery.id for delivery in held}
            deliveries = [delivery for delivery in deliveries if delivery.id not in kept]
        offered: list[Offered] = []
        waiting: list[Batch] = []
        by_lane: dict[object, list[Delivery]] = {}
        for delivery in deliveries:
            by_lane.setdefault(delivery.placement.lane, []).append(delivery)
        for group in by_lane.values():
            lane = group[0].placement.lane
            for batch in batches(lane, group, self.scheduler.transport(lane.transport).batch_limit):
                way = self.scheduler.offer(batch) if batch.deliveries[0].due <= now else None
                if way is not None:
                    offered.append((_opened(batch, now), way))
                else:
                    waiting.append(batch)
        return offered, waiting, held


def _read(head: bytes, sender: str, domain: str) -> Reply | tuple[bytes, Facts, tuple[str, ...]]:
    """Return a header with what it lacked, what is in it and the receipts, or why it is refused.

    `sender` stands in for a From that is not there, `domain` completes names that have none.
    """
    facts = headers.facts(head)
    if facts.endless_from:
        return FROM_TOO_LARGE
    made: tuple[str, ...] = ()
    if facts.unqualified or not facts.header_from:
        head, made = headers.completed(head, domain, sender)
        if made:
            facts = headers.facts(head)
    return LOOP if facts.received > HOPS_MAX else (head, facts, made)


def _opened(batch: Batch, now: float) -> Batch:
    due = retry_at(now)
    return Batch(batch.lane, tuple(delivery.sending(batch.lane, due) for delivery in batch.deliveries))


def _events(message: Message, rule: RouteRule, held: Sequence[Delivery], now: float) -> tuple[Event, ...]:
    names = ", ".join(rule.transports)
    events = [
        Event(now, "accepted", changes=message.changes),
        Event(now, "routed", transport=names, reply=f"{rule.name}: {rule.pattern} ({rule.source})"),
    ]
    events += [Event(now, "held", delivery.recipient.address, outcome=delivery.reason) for delivery in held]
    return tuple(events)
