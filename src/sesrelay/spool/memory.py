"""The spool in memory: the fake that tests of other rooms run on, held to the same contract suite as the real one.

Invariant: it shares with the real store what decides (filters, wishes) and nothing that stores.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, State, Stream
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.lineends import Canonical
from sesrelay.policy import ses_ids
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import (
    Claim,
    Clock,
    ContentGone,
    DeliveryRecord,
    Filter,
    MessageRecord,
    Opened,
    Settlement,
    SpoolError,
    Stats,
    Submission,
    Superseded,
    Told,
    Verb,
)
from sesrelay.spool import wishes
from sesrelay.spool.entries import Entry, Stored, changed_by, hand_out, record_of, stays, waits_for_its_hour
from sesrelay.spool.matching import OPEN, Match, bare_id, key, restricts
from sesrelay.spool.standing import Parking, StandingHolds


class MemorySpool(Parking):
    """Implements `seams.Spool` and `seams.SpoolAdmin`. Nothing outlives the process.

    `clock` dates what an operator's wish does at the end of an attempt; without one that is the epoch.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._claimed: set[DeliveryId] = set()
        self._sent: dict[tuple[str, int], int] = {}
        self._digests: dict[str, int] = {}
        self._closed = False
        self.standing = StandingHolds()

    # --- Spool -----------------------------------------------------------------------------------------------

    async def accept(self, submission: Submission, *, claimed: bool = False) -> None:
        self._check([submission])
        self._store(submission)
        if claimed:
            self._claimed.update(each.id for each in submission.deliveries if each.state is State.QUEUED)

    async def claim(self, lane: LaneKey, limit: int, now: float, *, passed_over: Collection[Stream] = (), after: str = "") -> Claim:
        self._alive()
        claim = hand_out([one.delivery for one in self._waiting()], lane, limit, now, passed_over, after)
        self._claimed.update(each.id for each in claim.deliveries)
        return claim

    async def fold(self, folded: Submission, compose: Callable[[int], Submission]) -> int:
        self._alive()
        if folded.message.id in self._entries:
            raise SpoolError(f"{folded.message.id}: the queue id is taken")
        name = compose(1).message.id
        count = self._digests.get(name, 0) + 1
        told = compose(count)
        standing = self._entries.get(name) if count > 1 else None
        if count > 1 and (standing is None or not all(self._waits(one) for one in standing.deliveries.values())):
            raise Superseded("the digest is on its way")
        self._entries.pop(name, None)
        self._check([told])
        self._store(told)
        self._store(folded)
        for one in self._entries[folded.message.id].deliveries.values():
            one.end = "suppressed"
        self._finish({folded.message.id})
        self._digests[name] = count
        return count

    async def unclaim(self, ids: Sequence[DeliveryId]) -> None:
        self._alive(*ids)
        self._claimed.difference_update(ids)

    async def open_attempt(
        self, ids: Sequence[DeliveryId], retry_at: float, lane: LaneKey | None = None, *, read: int | None = None
    ) -> Opened:
        self._alive(*ids)
        opened = set()
        for each in ids:
            stored = self._find(each)
            if stored is None or stored.delivery.state is not State.QUEUED:
                if each not in opened:
                    self._claimed.discard(each)
                continue
            attempts = stored.delivery.attempts + 1
            placement = replace(stored.delivery.placement, lane=lane) if lane else stored.delivery.placement
            stored.delivery = replace(stored.delivery, state=State.IN_FLIGHT, attempts=attempts, due=retry_at, placement=placement)
            opened.add(each)
        content = self._entries[next(iter(opened)).message].content if opened and read is not None else None
        return Opened(frozenset(opened), content if content is not None and len(content) == read else None)

    async def settle(self, settlement: Settlement, *, patient: bool = False) -> Mapping[DeliveryId, float]:
        self._alive(*settlement.verdicts)
        for each in () if settlement.attempted else settlement.verdicts:
            found = self._find(each)
            if found is None or found.delivery.state is not State.QUEUED or each in self._claimed:
                raise Superseded(f"{each.message}: its state has changed meanwhile")
        messages = {each.message for each in settlement.verdicts}
        if settlement.events and len(messages) != 1:
            raise SpoolError("the events of a settlement belong to one message")
        self._check(settlement.reports)
        self._claimed.difference_update(settlement.verdicts)
        for message in messages:
            if message in self._entries:
                self._entries[message].events += settlement.events
        now = 0.0 if self._clock is None else self._clock.wall()
        for each, verdict in settlement.verdicts.items():
            stored = self._find(each)
            if stored is not None:
                self._apply(stored, verdict, now)
        for report in settlement.reports:
            self._store(self.standing.applied(report))
        self._finish(messages)
        standing = {each: self._find(each) for each in settlement.verdicts}
        return {each: one.delivery.due for each, one in standing.items() if one and one.delivery.state is State.QUEUED}

    async def postpone(self, ids: Sequence[DeliveryId], due: float, reason: str | None) -> None:
        self._alive(*ids)
        for each in ids:
            stored = self._find(each)
            if stored is not None and stored.delivery.state is State.QUEUED:
                stored.delivery = replace(stored.delivery, due=due, reason=stored.delivery.reason if reason is None else reason)
            self._claimed.discard(each)

    async def rekey(
        self, place: Callable[[Delivery], Placement], after: DeliveryId | None, limit: int, *,
        hasten: Callable[[Delivery], bool] | None = None, now: float = 0.0, chosen: bool = False,
    ) -> DeliveryId | None:  # fmt: skip
        self._alive()
        queued = [each for each in self._in_order(after) if each.delivery.state is State.QUEUED]
        if chosen:
            queued = [each for each in queued if each.delivery.via not in (None, each.delivery.placement.lane.transport)]
        queued = queued[:limit]
        for each in queued:
            if each.delivery.id not in self._claimed:
                due = min(each.delivery.due, now) if hasten is not None and hasten(each.delivery) else each.delivery.due
                each.delivery = replace(each.delivery, placement=place(each.delivery), due=due)
        return queued[-1].delivery.id if len(queued) == limit else None

    async def set_back(self, seconds: float, now: float) -> None:
        self._alive()
        for each in self._in_order(None):
            one = each.delivery
            was_due = one.due <= now + seconds
            if one.state is State.QUEUED and one.due > now and (was_due or one.reason != SCHEDULED):
                each.delivery = replace(one, due=now if was_due else one.due - seconds)

    async def content(self, message: str) -> Canonical:
        self._alive(DeliveryId(message, 0))
        entry = self._entries.get(message)
        if entry is None or entry.content is None:
            raise ContentGone(f"{message}: the content no longer exists")
        return entry.content

    async def filed(self, message: str) -> None:
        """Return None: nothing is in files."""

    async def open_attempts(self, limit: int) -> Sequence[Delivery]:
        self._alive()
        return [each.delivery for each in self._in_order(None) if each.delivery.state is State.IN_FLIGHT][:limit]

    async def lanes(self) -> Mapping[LaneKey, float]:
        self._alive()
        found: dict[LaneKey, float] = {}
        for each in self._waiting():
            lane, due = each.delivery.placement.lane, each.delivery.due
            found[lane] = min(due, found.get(lane, due))
        return found

    async def aged(self, accepted_before: float, after: DeliveryId | None, limit: int) -> Sequence[Delivery]:
        self._alive()
        waiting = (each.delivery for each in self._waiting(after))
        return [each for each in waiting if each.message.accepted < accepted_before][:limit]

    async def purge(self, finished_before: float, now: float, limit: int) -> int:
        self._alive()
        old = [name for name, entry in sorted(self._entries.items()) if entry.message.accepted < finished_before and not entry.open]
        for name in old[:limit]:
            del self._entries[name]
        return len(old[:limit])

    async def count_sent(self, counts: Sequence[tuple[str, int, int]], forget_before: int) -> None:
        self._alive()
        self._sent.update({(site, slot): n for site, slot, n in counts})
        sites = {site for site, _, _ in counts}
        self._sent = {key: n for key, n in self._sent.items() if key[0] not in sites or key[1] >= forget_before}

    async def sent_counts(self) -> Sequence[tuple[str, int, int]]:
        self._alive()
        return [(site, slot, n) for (site, slot), n in sorted(self._sent.items())]

    async def close(self) -> None:
        self._closed = True

    async def ping(self) -> None:
        self._alive()

    def forget_claims(self) -> None:
        """Do to claims what the death of a process does."""
        self._claimed.clear()

    # --- SpoolAdmin ------------------------------------------------------------------------------------------

    async def list(self, filter: Filter, now: float, after: DeliveryId | None, limit: int) -> Sequence[DeliveryRecord]:
        self._alive()
        return [record_of(each) for each in self._matching(Match(filter, now), after)][:limit]

    async def show(self, queue_id: str) -> MessageRecord | None:
        self._alive()
        entry = self._entries.get(queue_id)
        if entry is None:
            return None
        deliveries = tuple(record_of(each) for _, each in sorted(entry.deliveries.items()))
        return MessageRecord(entry.message, deliveries, tuple(sorted(entry.events, key=lambda event: event.time)))

    async def find(self, any_id: str) -> Sequence[str]:
        self._alive()
        bare = bare_id(any_id)
        remote_ids = ses_ids.meant(bare)
        return [
            name
            for name, entry in sorted(self._entries.items())
            if bare == name
            or (entry.message.message_id and entry.message.message_id in (bare, f"<{bare}>"))
            or any(each.remote_id in remote_ids for each in entry.deliveries.values())
        ]

    async def greetings(self, message_id: str, listener: str, beginning: str) -> Sequence[str]:
        self._alive()
        bare = bare_id(message_id)
        found = [each.message for each in self._entries.values() if each.message.message_id in (bare, f"<{bare}>") and bare]
        origins = [message.origin for message in found if message.origin.listener == listener]
        return [origin.helo for origin in origins if origin.helo.startswith(beginning)]

    async def recent(self, limit: int) -> Sequence[MessageRecord]:
        self._alive()
        newest = sorted(self._entries, reverse=True)[:limit]
        return [replace(record, events=()) for record in [await self.show(name) for name in newest] if record is not None]

    async def change(self, verb: Verb, filter: Filter, now: float, via: str | None = None, told: Told | None = None) -> int:
        self._alive()
        if not restricts(filter):
            return 0
        changed = 0
        for stored in builtins.list(self._matching(Match(filter, now), None)):
            decision = wishes.decide(verb, stored.delivery.state, stored.wish)
            keeps_hour = verb == "retry" and not filter.ids and waits_for_its_hour(stored.delivery, now)
            if decision is None or (keeps_hour and via is None):
                continue
            changed += 1
            if via is not None and not stays(stored.delivery):
                stored.delivery = replace(stored.delivery, via=via, pinned=None)
            if keeps_hour:
                continue
            if decision.state is State.IN_FLIGHT:
                stored.wish = decision.wish
                continue
            self._tell(stored, verb, now)
            stored.delivery = changed_by(stored.delivery, verb, decision.state, now)
        self._finish(set(self._entries))
        if told is not None:
            told(changed, changed)
        return changed

    async def keep(self, statement: str, bindings: tuple[object, ...]) -> None:
        self._alive()

    async def stats(self) -> Stats:
        self._alive()
        counts: dict[tuple[str, State], int] = {}
        oldest: dict[str, float] = {}
        for each in self._in_order(None):
            delivery, transport = each.delivery, each.delivery.placement.lane.transport
            if each.open:
                counts[transport, delivery.state] = counts.get((transport, delivery.state), 0) + 1
                oldest[transport] = min(delivery.message.began, oldest.get(transport, delivery.message.began))
        alive = [entry for entry in self._entries.values() if entry.open]
        return Stats(
            len(alive), sum(entry.message.size for entry in alive), min(oldest.values(), default=None), counts, oldest
        )  # fmt: skip

    # --- inside ----------------------------------------------------------------------------------------------

    def _alive(self, *ids: DeliveryId) -> None:
        if self._closed:
            raise SpoolError("the store is closed")
        for each in ids:
            if not queue_id.PATTERN.match(each.message):
                raise SpoolError(f"{each.message!r} is not a queue id")

    def _check(self, submissions: Sequence[Submission]) -> None:
        names = [each.message.id for each in submissions]
        for each in submissions:
            message, recipients = each.message, each.message.envelope.recipients
            self._alive(DeliveryId(message.id, 0))
            if message.id in self._entries or names.count(message.id) > 1:
                raise SpoolError(f"{message.id}: the queue id is taken")
            places = [delivery.id.n for delivery in each.deliveries]
            if not places or len(set(places)) != len(places):
                raise SpoolError(f"{message.id}: no delivery, or two for one recipient")
            for delivery in each.deliveries:
                n = delivery.id.n
                if delivery.id.message != message.id or not 0 <= n < len(recipients) or recipients[n] != delivery.recipient:
                    raise SpoolError(f"{message.id}: delivery {n} names no recipient of the envelope")
                if delivery.state not in OPEN:
                    raise SpoolError(f"{message.id}: delivery {n} has ended before it began")

    def _store(self, submission: Submission) -> None:
        deliveries = {each.id.n: Stored(replace(each, message=submission.message)) for each in submission.deliveries}
        entry = Entry(submission.message, _held(submission.content), deliveries, builtins.list(submission.events))
        self._entries[submission.message.id] = entry

    def _find(self, delivery: DeliveryId) -> Stored | None:
        entry = self._entries.get(delivery.message)
        return None if entry is None else entry.deliveries.get(delivery.n)

    def _in_order(self, after: DeliveryId | None) -> Iterator[Stored]:
        for name, entry in sorted(self._entries.items()):
            for n, stored in sorted(entry.deliveries.items()):
                if after is None or (name, n) > after:
                    yield stored

    def _waiting(self, after: DeliveryId | None = None) -> Iterator[Stored]:
        for each in self._in_order(after):
            if self._waits(each):
                yield each

    def _waits(self, stored: Stored) -> bool:
        return stored.delivery.state is State.QUEUED and stored.delivery.id not in self._claimed

    def _matching(self, match: Match, after: DeliveryId | None) -> Iterator[Stored]:
        for stored in self._in_order(after):
            delivery = stored.delivery
            if (match.ids is None or queue_id.decode(delivery.id.message) in match.ids) and match(
                delivery.state,
                delivery.placement.lane.transport,
                key(delivery.message.sender),
                key(delivery.recipient.address),
                delivery.message.accepted,
            ):
                yield stored

    def _apply(self, stored: Stored, asked: Verdict, now: float) -> None:
        state = stored.delivery.state
        if state.final or (state is State.HELD and not asked.state.final):
            return
        verdict = wishes.fulfil(asked, stored.wish, now)
        if verdict is not asked and stored.wish is not None:
            self._tell(stored, stored.wish, now)
        stored.end, stored.remote_id, stored.wish = verdict.end, verdict.remote_id, None
        stored.delivery = replace(
            stored.delivery, state=verdict.state, due=verdict.due, attempts=verdict.attempts, doubts=verdict.doubts,
            pinned=verdict.pinned, warned=verdict.warned, reason=verdict.reason, reply=verdict.reply,
        )  # fmt: skip

    def _tell(self, stored: Stored, what: Verb | wishes.Wish, now: float) -> None:
        delivery = stored.delivery
        told = wishes.event(what, now, delivery.recipient.address, *delivery.placement.lane)
        self._entries[delivery.id.message].events.append(told)

    def _finish(self, names: set[str]) -> None:
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and not entry.open:
                entry.content = None


def _held(content: Large) -> Canonical:
    return content.whole() if isinstance(content, Filed) else content
