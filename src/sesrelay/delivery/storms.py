"""The storm guard: of messages that are the same, those above a route's `storm_limit` an hour are folded into one digest.

A folded message is accepted and ends at once, visibly: state failed, outcome suppressed, reason `folded`, with its history. The
digest goes to the same recipients when the hour is over, tells how many there were, and holds one of them.

Invariant: the message that ends and the digest that tells of it are stored together, or neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from sesrelay.delivery import placing
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail import digest
from sesrelay.mail.delivery import Delivery, DeliveryId, Placement, State
from sesrelay.mail.envelope import Message, Origin
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.trace import Event
from sesrelay.policy.routing import RouteRule
from sesrelay.policy.storm import Kind, Kinds, fingerprint
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Observer, Spool, Submission, Superseded

FOLDED = "folded"
FIRSTS_MAX = 200  # of 64 KiB each


@dataclass(slots=True)
class StormGuard:
    """Counts what comes by routes with a `storm_limit`, and folds what is too much."""

    spool: Spool
    scheduler: Scheduler
    observer: Observer
    _kinds: Kinds = field(default_factory=Kinds, init=False)
    _firsts: dict[str, bytes] = field(default_factory=dict, init=False)

    async def one_too_many(self, message: Message, content: Large, limit: int, now: float) -> Kind | None:
        """Count a message; return its kind where it is to be folded. Never are bounces, what is to leave later, and
        what waits for the operator from the start. Raises: SpoolError
        """
        envelope = message.envelope
        if not envelope.sender or envelope.release is not None or any(recipient.hold for recipient in envelope.recipients):
            return None
        to = [recipient.address for recipient in envelope.recipients]
        look = partial(fingerprint, message.sender, to, message.subject, content)
        return self._kinds.see(await asyncio.to_thread(look) if isinstance(content, Filed) else look(), limit, now)

    async def fold(
        self, message: Message, content: Large, rule: RouteRule, deliveries: list[Delivery], kind: Kind, now: float
    ) -> None:
        """End a message that is one too many, and have the digest tell of it. Durable on return. Raises: SpoolError"""
        try:
            await self._fold(message, content, rule, deliveries, kind, now)
        except Superseded:
            kind.digest = None  # it is on its way, or an operator holds it: another one takes over
            await self._fold(message, content, rule, deliveries, kind, now)

    async def _fold(
        self, message: Message, content: Large, rule: RouteRule, deliveries: list[Delivery], kind: Kind, now: float
    ) -> None:
        snapshot = self.scheduler.snapshot
        name = kind.digest or self.scheduler.ids.new()
        kind.digest = name
        first = self._firsts.setdefault(name, bytes(content[: digest.WHOLE_MAX + 1]))
        compose = _composer(name, first, message, rule, snapshot, kind, now, self._place(snapshot, message, rule, now))
        reply = f"250 2.0.0 folded into {name}"
        ended = tuple(replace(one, state=State.FAILED, reason=FOLDED, reply=reply) for one in deliveries)
        events = (
            Event(now, "accepted", changes=message.changes),
            *(Event(now, "failed", one.recipient.address, outcome="suppressed", reply=reply) for one in ended),
        )
        count = await self.spool.fold(Submission(message, content, ended, events), compose)
        verdict = Verdict(State.FAILED, now, 0, 0, reason=FOLDED, reply=reply, end="suppressed")
        for one in ended:
            self.observer.settled(one, verdict)
        if count == 1:
            for placed in compose(1).deliveries:
                self.scheduler.stored(placed.placement.lane, placed.placement.stream, placed.due)
            self._forget_old()

    def _place(self, snapshot: Snapshot, message: Message, rule: RouteRule, now: float) -> Callable[[str], Placement]:
        return lambda address: placing.place(message, address, rule, snapshot, self.scheduler.pauses, now)

    def _forget_old(self) -> None:
        """Forget the oldest firsts. The next message of such a kind stands in for its first: they are the same."""
        while len(self._firsts) > FIRSTS_MAX:
            del self._firsts[next(iter(self._firsts))]


def _composer(
    name: str, first: bytes, like: Message, rule: RouteRule, snapshot: Snapshot, kind: Kind, now: float,
    place: Callable[[str], Placement],
) -> Callable[[int], Submission]:  # fmt: skip
    """Return what makes the digest of so many messages; it is pure and may run on another thread."""
    limit = rule.limits.storm_limit or 0

    def compose(folded: int) -> Submission:
        text = digest.compose(
            first,
            folded,
            queue_id=name,
            hostname=snapshot.hostname,
            route=rule.name,
            limit=limit,
            began=kind.began,
            last=now,
            now=now,
        )
        envelope = replace(like.envelope, body="8BITMIME", envid=None)
        message = Message(
            name, envelope, Origin(), len(text), now, like.header_from, f"<{name}@{snapshot.hostname}>",
            f"[{folded} more] {like.subject}", priority=like.priority,
        )  # fmt: skip
        deliveries = tuple(
            Delivery(DeliveryId(name, n), message, recipient, place(recipient.address), due=kind.ends, reason="storm_limit")
            for n, recipient in enumerate(envelope.recipients)
        )
        return Submission(message, text, deliveries, (Event(now, "accepted", reply=f"a digest, of route {rule.name}"),))

    return compose
