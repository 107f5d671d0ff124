"""Any sequence of operations, with restarts in between, leaves both spools in the same state."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from fakes import FakeClock
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Priority, State, Stream
from sesrelay.mail.envelope import Descent
from sesrelay.mail.trace import Event
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Claim, Filter, Settlement, SpoolError, Submission, Verb
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.sqlite import SqliteSpool
from spool_world import BODY, MX, NOW, SES, deferred, delivered, failed, held, opened, submission

T = TypeVar("T")
Store = SqliteSpool | MemorySpool

OTHER = LaneKey("ses", "eu-west-1/AKIA")
lanes = st.sampled_from([SES, MX, OTHER])
sites = st.sampled_from(["", "a", "b", "c"])
streams = st.builds(Stream, st.sampled_from(list(Priority)), sites)
dues = st.integers(0, 20).map(lambda seconds: NOW + seconds)
addresses = st.sampled_from(["a@example.org", "B@Example.ORG", "c@bücher.example", "d@example.net"])
verdicts = st.sampled_from(
    [delivered("r-1"), delivered("r-2"), deferred(NOW + 3), deferred(NOW + 15), deferred(NOW + 100), failed(), held()]
)
messages = st.fixed_dictionaries(
    {
        "recipients": st.lists(addresses, min_size=1, max_size=3),
        "sender": st.sampled_from(["ann@example.com", "eve@else.example", ""]),
        "lane": lanes,
        "due": dues,
        "priority": st.sampled_from(list(Priority)),
        "site": sites,
        "state": st.sampled_from([State.QUEUED, State.QUEUED, State.QUEUED, State.IN_FLIGHT, State.HELD]),
    }
)
filters = st.builds(
    Filter,
    states=st.lists(st.sampled_from(list(State)), max_size=2).map(tuple),
    sender=st.sampled_from([None, None, "@example.com", "<>"]),
    recipient=st.sampled_from([None, None, "*@example.org", "c@bücher.example"]),
    transport=st.sampled_from([None, None, "ses", "direct"]),
    older_than=st.sampled_from([None, None, 5.0]),
)


class Machine(RuleBasedStateMachine):
    """Runs each operation on both stores, and compares what they answer and what they hold."""

    submissions = Bundle("submissions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock(NOW + 100)
        self.loop = asyncio.new_event_loop()
        self.memory = MemorySpool(self.clock)
        self.sqlite = self.run(opened(Path(self.folder.name), self.clock))
        self.serial = 0

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(_await(call))

    def both(self, do: Callable[[Store], Awaitable[T]]) -> T | str:
        answers = [self.run(_told(do(store))) for store in (self.memory, self.sqlite)]
        assert answers[0] == answers[1]
        return answers[0]

    def at_once(self, do: Callable[[Store], Sequence[Awaitable[T]]]) -> None:
        """Run operations on both stores that come together, and so go into one transaction of the one that has any."""

        async def all_of(store: Store) -> list[T | str]:
            return await asyncio.gather(*map(_told, do(store)))

        self.both(all_of)

    @initialize(target=submissions, wanted=st.lists(messages, min_size=2, max_size=6))
    def start(self, wanted: Sequence[Mapping[str, Any]]) -> MultipleResults[Submission]:
        assert self.both(lambda store: store.lanes()) == {}
        return self.accept(wanted, False)

    @rule(target=submissions, wanted=st.lists(messages, min_size=1, max_size=3), claimed=st.booleans())
    def accept(self, wanted: Sequence[Mapping[str, Any]], claimed: bool) -> MultipleResults[Submission]:
        made = []
        for each in wanted:
            self.serial += 1
            made.append(submission(self.serial, message_id=f"<{self.serial % 3}@x>", **each))
        self.at_once(lambda store: [store.accept(each, claimed=claimed) for each in made])
        return multiple(*made)

    @rule(lane=lanes, limit=st.integers(1, 6), given=st.lists(verdicts, min_size=3, max_size=3), dies=st.booleans())
    def attempts(self, lane: LaneKey, limit: int, given: Sequence[Verdict], dies: bool) -> None:
        """Let a lane send what is due, a batch for each message; where it `dies` in between, the attempts stay open."""
        claimed = self.both(lambda store: store.claim(lane, limit, NOW + 20))
        assert isinstance(claimed, Claim)
        batches = [list(found) for _, found in groupby((one.id for one in claimed.deliveries), key=lambda one: one.message)]
        self.at_once(lambda store: [store.open_attempt(batch, NOW + 60, OTHER) for batch in batches])
        if not dies:
            event = Event(NOW, "attempt", reply="x")
            ends = [Settlement({one: given[one.n % 3] for one in batch}, (event,)) for batch in batches]
            self.at_once(lambda store: [store.settle(each) for each in ends])
            self.at_once(lambda store: [store.content(batch[0].message) for batch in batches])

    @rule(made=submissions)
    def accept_again(self, made: Submission) -> None:
        self.both(lambda store: store.accept(made))

    @rule(lane=lanes, limit=st.integers(0, 5), now=dues, passed_over=st.frozensets(streams, max_size=3), after=sites)
    def claim(self, lane: LaneKey, limit: int, now: float, passed_over: frozenset[Stream], after: str) -> None:
        self.both(lambda store: store.claim(lane, limit, now, passed_over=passed_over, after=after))

    @rule(made=submissions, pick=st.sets(st.integers(0, 3)))
    def unclaim(self, made: Submission, pick: set[int]) -> None:
        self.both(lambda store: store.unclaim(picked(made, pick)))

    @rule(made=submissions, pick=st.sets(st.integers(0, 3)), read=st.sampled_from([None, len(BODY), 1]))
    def open_attempt(self, made: Submission, pick: set[int], read: int | None) -> None:
        self.both(lambda store: store.open_attempt(picked(made, pick), NOW + 60, read=read))

    @rule(made=submissions, pick=st.sets(st.integers(0, 2)), verdict=verdicts, other=verdicts, report=st.booleans())
    def settle(self, made: Submission, pick: set[int], verdict: object, other: object, report: bool) -> None:
        chosen = picked(made, pick)
        given = {each: verdict if each.n % 2 else other for each in chosen}
        self.serial += report
        reports = (submission(self.serial, sender="", report=Descent(), due=NOW + 2),) if report else ()
        events = (Event(NOW + self.serial, "attempt", reply="x"),) if chosen else ()
        self.both(lambda store: store.settle(Settlement(given, events, reports)))  # type: ignore[arg-type]

    @rule(made=submissions, pick=st.sets(st.integers(0, 3)), due=dues, reason=st.sampled_from([None, "paused"]))
    def postpone(self, made: Submission, pick: set[int], due: float, reason: str | None) -> None:
        self.both(lambda store: store.postpone(picked(made, pick), due, reason))

    @rule(verb=st.sampled_from(["hold", "release", "retry", "delete"]), filter=filters, now=dues)
    def change(self, verb: Verb, filter: Filter, now: float) -> None:
        self.both(lambda store: store.change(verb, filter, now))

    @rule(verb=st.sampled_from(["hold", "release", "retry", "delete"]), made=submissions)
    def change_one(self, verb: Verb, made: Submission) -> None:
        self.both(lambda store: store.change(verb, Filter(ids=(made.message.id,)), NOW))

    @rule(limit=st.integers(1, 4), to=lanes)
    def rekey(self, limit: int, to: LaneKey) -> None:
        def place(delivery: Delivery) -> Placement:
            return replace(delivery.placement, lane=to) if delivery.id.n == 0 else delivery.placement

        after: DeliveryId | str | None = None
        while True:
            after = self.both(lambda store, after=after: store.rekey(place, after, limit))  # type: ignore[misc]
            if after is None:
                return

    @rule(filter=filters, via=st.sampled_from(["ses", "direct"]), now=dues)
    def retry_by(self, filter: Filter, via: str, now: float) -> None:
        self.both(lambda store: store.change("retry", filter, now, via))

    @rule(limit=st.integers(1, 4), to=lanes, where_chosen=st.booleans())
    def rekey_chosen(self, limit: int, to: LaneKey, where_chosen: bool) -> None:
        def place(delivery: Delivery) -> Placement:
            assert delivery.via is not None
            lane = LaneKey(delivery.via, to.nexthop) if where_chosen else to
            return replace(delivery.placement, lane=lane)

        for store in (self.memory, self.sqlite):
            after: DeliveryId | None = None
            while True:
                after = self.run(store.rekey(place, after, limit, chosen=True))
                if after is None:
                    break

    @rule(seconds=st.integers(1, 12), now=dues)
    def set_back(self, seconds: int, now: float) -> None:
        self.both(lambda store: store.set_back(seconds, now))

    @rule(before=dues, limit=st.integers(1, 3))
    def purge(self, before: float, limit: int) -> None:
        self.both(lambda store: store.purge(before, before, limit))

    @rule(before=dues, limit=st.integers(1, 3))
    def aged(self, before: float, limit: int) -> None:
        self.both(lambda store: store.aged(before, None, limit))

    @rule(filter=filters, limit=st.integers(1, 4))
    def list(self, filter: Filter, limit: int) -> None:
        after: DeliveryId | None = None
        while True:
            page = self.both(lambda store, after=after: store.list(filter, NOW + 10, after, limit))  # type: ignore[misc]
            if not page:
                return
            after = page[-1].delivery.id  # type: ignore[union-attr]

    @rule(text=st.sampled_from(["r-1", "r-2", "<0@x>", "1@x", "nothing"]))
    def find(self, text: str) -> None:
        self.both(lambda store: store.find(text))

    @rule(made=submissions)
    def content(self, made: Submission) -> None:
        self.both(lambda store: store.content(made.message.id))

    @rule()
    def restart(self) -> None:
        """The process dies between two operations: what was answered stays, claims do not."""
        self.run(self.sqlite.close())
        self.sqlite = self.run(opened(Path(self.folder.name), self.clock))
        self.memory.forget_claims()

    @rule()
    def crash(self) -> None:
        """The power fails: what is on disk at that moment, the log not yet written home, is all there is."""
        after = tempfile.TemporaryDirectory()
        for name in ("queue.db", "queue.db-wal"):
            if (Path(self.folder.name) / name).exists():
                shutil.copy(Path(self.folder.name) / name, after.name)
        self.run(self.sqlite.close())
        self.folder.cleanup()
        self.folder = after
        self.sqlite = self.run(opened(Path(self.folder.name), self.clock))
        self.memory.forget_claims()

    @invariant()
    def same_state(self) -> None:
        self.both(lambda store: store.stats())
        self.both(lambda store: store.lanes())
        self.both(lambda store: store.list(Filter(states=tuple(State)), NOW, None, 999))
        self.both(lambda store: store.open_attempts(999))
        for record in self.run(self.memory.recent(3)):
            self.both(lambda store, record=record: store.show(record.message.id))  # type: ignore[misc]

    def teardown(self) -> None:
        self.run(self.sqlite.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()


def picked(made: Submission, pick: set[int]) -> list[DeliveryId]:
    return [DeliveryId(made.message.id, n) for n in sorted(pick)]


async def _await(call: Awaitable[T]) -> T:
    return await call


async def _told(call: Awaitable[T]) -> T | str:
    try:
        return await call
    except SpoolError:
        return "SpoolError"


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # to make what fails shorter takes longer than a test may
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
