"""Mail at rest: what the engine and the operators ask of a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Stream
from sesrelay.mail.envelope import Message
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.records import DeliveryRecord, Filter, MessageRecord, StandingHold, Stats
from sesrelay.mail.trace import Event
from sesrelay.mail.value import value
from sesrelay.policy.verdict import Verdict


class SpoolError(Exception):
    """The store could not do it (disk full, I/O error, closed). Nothing of the operation is stored; try again later."""


class NoSpace(SpoolError):
    """The disk has too little room left for another message."""


class ContentGone(SpoolError):
    """The content of a message is not in the store any more, or damaged there: no waiting brings it back."""


class Superseded(SpoolError):
    """What was to be settled without an attempt, or told of by a digest, has moved on meanwhile."""


class Unfit(Exception):
    """A message that was to be imported cannot be; the text says why and what would make it fit."""


@value(frozen=True, slots=True)
class Submission:
    """A message ready to be stored: content with our Received line in front, one delivery a recipient.

    Deliveries are in state queued, held, or in_flight: the last where the attempt is opened by the same commit.
    """

    message: Message
    content: Large
    deliveries: tuple[Delivery, ...]
    events: tuple[Event, ...] = ()


@value(frozen=True, slots=True)
class Claim:
    """What `claim` hands out. `due`: when the earliest that was not is due, of each stream that has one and was looked at."""

    deliveries: tuple[Delivery, ...]
    due: Mapping[Stream, float]

    @property
    def next_due(self) -> float | None:
        return min(self.due.values(), default=None)


@value(frozen=True, slots=True)
class Opened:
    """What `open_attempt` put on record. `content`: what the message says, where it was wanted and at hand."""

    ids: frozenset[DeliveryId]
    content: Canonical | None = None


@value(frozen=True, slots=True)
class Settlement:
    """The end of one attempt: every delivery's verdict, the events, and the reports due, all in one transaction.

    `attempted` False: a verdict by age alone, on deliveries that wait and that nobody has claimed.
    """

    verdicts: Mapping[DeliveryId, Verdict]
    events: tuple[Event, ...] = ()
    reports: tuple[Submission, ...] = ()
    attempted: bool = True


class Spool(Protocol):
    """Messages at rest, for the engine. Every method may raise SpoolError, and then nothing has changed.

    A delivery that `claim` handed out, or that `accept` was told of as queued with `claimed=True`, is not handed out
    again before `unclaim`, `settle` or `postpone` names it. Claims live in memory: after a crash all are free.
    """

    async def accept(self, submission: Submission, *, claimed: bool = False) -> None:
        """Store a message. Durability: on stable storage on return. A repeated queue id raises SpoolError."""

    async def fold(self, folded: Submission, compose: Callable[[int], Submission]) -> int:
        """Store a message that ends at once, outcome suppressed, and anew the digest `compose(n)` that tells of n; return n.
        `compose` is pure and may run on another thread. Raises: Superseded where the digest does not wait any more.
        """

    async def claim(self, lane: LaneKey, limit: int, now: float, *, passed_over: Collection[Stream] = (), after: str = "") -> Claim:
        """Hand out at most `limit` queued deliveries of `lane` that are due at `now`: by priority; within one in turn a delivery
        of each site, from the first site behind `after` on; within a site by due time. `passed_over` is not looked at.
        """

    async def unclaim(self, ids: Sequence[DeliveryId]) -> None:
        """Give claims back, unattempted."""

    async def open_attempt(
        self, ids: Sequence[DeliveryId], retry_at: float, lane: LaneKey | None = None, *, read: int | None = None
    ) -> Opened:
        """Put on record that these, of one message, are about to be sent, with one attempt more; due at `retry_at` after a crash.

        `lane`: the one that sends them, where they waited in another; what is in doubt after a crash is repeated there.
        `read`: how many octets the content has, where it is wanted as well: it may come along. None says nothing of why it did not;
        `content` tells.

        Return those that were still queued: only these may be sent; the others' claims are dropped.
        Durability: on stable storage on return.
        """

    async def settle(self, settlement: Settlement, *, patient: bool = False) -> Mapping[DeliveryId, float]:
        """Store the end of an attempt; content goes when the last delivery of a message has ended.

        `patient`: nobody waits for what it frees, so it may wait a moment for something else to share its commit with.
        Return when those that are queued again are due. Raises: Superseded for one that was not `attempted`.

        An operator's wish that came in flight (hold, delete, retry) takes effect here where the verdict is queued. An end counts
        wherever the delivery stands, held too, and stays. Durability: on stable storage on return; claims of those named go back.
        """

    async def postpone(self, ids: Sequence[DeliveryId], due: float, reason: str | None) -> None:
        """Move the due time of queued deliveries without an attempt, and give their claims back."""

    async def rekey(
        self, place: Callable[[Delivery], Placement], after: DeliveryId | None, limit: int, *,
        hasten: Callable[[Delivery], bool] | None = None, now: float = 0.0, chosen: bool = False,
    ) -> DeliveryId | None:  # fmt: skip
        """Place anew the next `limit` unclaimed queued deliveries behind `after`, in order of arrival; with `chosen` only those
        that wait for another way than an operator chose. Those of which `hasten` says so are due at `now` at the latest.
        Return the last one looked at, or None when there are no more. Both are pure and may run on another thread.
        """

    async def set_back(self, seconds: float, now: float) -> None:
        """Let what is queued keep its wait after the clock was set back by `seconds`; what is scheduled keeps its hour."""

    async def content(self, message: str) -> Canonical:
        """Return the content of a message by its queue id. Raises: SpoolError, ContentGone"""

    async def filed(self, message: str) -> Filed | None:
        """Return large content as it stands in its file, where every host takes it so; None where it is to be read whole."""

    async def open_attempts(self, limit: int) -> Sequence[Delivery]:
        """Return deliveries in state in_flight: at start, those whose process died before the outcome was stored."""

    async def lanes(self) -> Mapping[LaneKey, float]:
        """Return the lanes that have queued, unclaimed deliveries, with the earliest due time of each."""

    async def aged(self, accepted_before: float, after: DeliveryId | None, limit: int) -> Sequence[Delivery]:
        """Return queued, unclaimed deliveries of messages accepted before that moment, in order of arrival."""

    async def purge(self, finished_before: float, now: float, limit: int) -> int:
        """Forget messages that were accepted before that moment and of which every delivery has ended; return how many.

        `now` tells the ids that are of the future: they were made while the clock was ahead, and say nothing of a message's age.
        """

    async def count_sent(self, counts: Sequence[tuple[str, int, int]], forget_before: int) -> None:
        """Store whole numbers by name and slot, as what each site sent in five minutes, and forget older slots of those names."""

    async def sent_counts(self) -> Sequence[tuple[str, int, int]]:
        """Return what `count_sent` has stored."""

    def standing_hold(self, delivery: Delivery) -> str | None:
        """Return why a delivery that is about to be accepted is to be held, by `SpoolAdmin.park`; None where it is not.
        In memory, and asked for each delivery: quick where nothing is parked. Reports in a settlement are held without it.
        """

    async def close(self) -> None:
        """Finish what waits, checkpoint, close. Later calls raise SpoolError."""


class SpoolAdmin(Protocol):
    """Messages at rest, for operators. Reads see what is committed; changes are durable on return."""

    async def list(self, filter: Filter, now: float, after: DeliveryId | None, limit: int) -> Sequence[DeliveryRecord]:
        """Return the next page behind `after`, oldest first. An empty Filter lists all that has not ended."""

    async def show(self, queue_id: str) -> MessageRecord | None: ...

    async def find(self, any_id: str) -> Sequence[str]:
        """Return queue ids for a queue id, a Message-ID (with or without <>) or a remote id, oldest first."""

    async def greetings(self, message_id: str, listener: str, beginning: str) -> Sequence[str]:
        """Return the EHLO names that begin with `beginning` of what has that Message-ID and came in by `listener`.

        `beginning`: what JSON writes as it stands.
        """

    async def recent(self, limit: int) -> Sequence[MessageRecord]:
        """Return the messages accepted last, newest first, without events."""

    async def change(self, verb: Verb, filter: Filter, now: float, via: str | None = None, told: Told | None = None) -> int:
        """Hold (reason operator), release (held → queued, due now, doubts forgotten), retry (queued → due now) or delete.

        What is scheduled keeps its hour, unless a retry names its id; a retry by filter changes nothing of it but `via`.

        `via`, with retry and release: the transport to take from now on instead of the route's. What is in doubt stays where it is,
        unless it is held for any other reason than `operator`: who releases that by another way says that it was not sent.

        Return how many deliveries changed; one in flight counts, and changes when its attempt ends. Deleting the last
        open delivery of a message deletes its content. Events are recorded. `told` hears how far it is.
        """

    async def park(self, filter: Filter, now: float) -> None:
        """Hold from now on what comes and matches, for reason operator, until `unpark`; what is here is left as it is."""

    async def unpark(self, filter: Filter) -> bool:
        """Hold no longer what comes; False where nothing of that filter was parked. What is held is left as it is."""

    def parked(self) -> Sequence[StandingHold]:
        """Return what is held as it comes, the oldest wish first."""

    async def stats(self) -> Stats: ...

    async def content(self, message: str) -> Canonical:
        """See `Spool.content`."""


Verb = Literal["hold", "release", "retry", "delete"]

Told = Callable[[int, int], None]
"""How far a long change is: deliveries looked at, and changed."""
