"""Whatever happens in whatever order: what was acknowledged ends exactly once, or still waits.

Accept, answers of every kind, the death of the process at any moment, a store that fails, a clock that is set, an operator
and reloads.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.delivery.clock_watch import ClockWatch
from sesrelay.delivery.housekeeping import Housekeeping
from sesrelay.delivery.intake import Acceptance
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.mail.delivery import Batch, DeliveryId, State
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.ladder import FOLDER
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import Content, Filter, SpoolError, Verb
from sesrelay.spool.memory import MemorySpool

T = TypeVar("T")
DAY = 86400.0
LATER, NO, HM = Reply(451, "4.7.1", "Later"), Reply(550, "5.1.1", "No"), Reply(451, "4.4.2", "Lost")
ANSWERS: dict[str, Outcome | Exception] = {
    "taken": Delivered(OK, "remote"),
    "greylisted": Deferred(LATER, Scope.RECIPIENT),
    "throttled": Deferred(LATER, Scope.NEXTHOP, reason=PauseReason.THROTTLED),
    "key expired": Deferred(LATER, Scope.TRANSPORT, reason=PauseReason.CREDENTIALS),
    "unverified": Deferred(LATER, Scope.SENDER_DOMAIN),
    "lost": Deferred(HM, Scope.MESSAGE, ambiguous=True),
    "refused": Failed(NO, Scope.RECIPIENT),
    "bug": RuntimeError("a bug of ours"),
}
DOUBTFUL = {"lost", "bug"}
# What the engine asks of the store on its own account, but for `settle`, which has a patience of its own.
ASKED = ("claim", "open_attempt", "unclaim", "postpone", "rekey", "lanes", "count_sent")


class Fickle(ScriptedTransport):
    """Answers as it is told to, or not before `gate` is opened; counts what it was asked to send, and each doubt."""

    def __init__(self, name: str) -> None:
        super().__init__(name, failover_after=60.0)
        self.answers = "taken"
        self.sent: Counter[DeliveryId] = Counter()
        self.unsure: Counter[DeliveryId] = Counter()
        self.put_off: Counter[DeliveryId] = Counter()
        self.under: set[DeliveryId] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        assert self.gate is not None
        ids = [delivery.id for delivery in batch.deliveries]
        self.sent.update(ids)
        self.under.update(ids)
        await content.read()
        await self.gate.wait()
        self.under.difference_update(ids)
        answer = ANSWERS[self.answers]
        if self.answers in DOUBTFUL:
            self.unsure.update(ids)
        elif isinstance(answer, Deferred):
            self.put_off.update(ids)
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(ids, answer)


class Faltering(MemorySpool):
    """A store that does nothing of what is `failing`, and says so."""

    failing: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if name in ASKED and name in self.failing:
            return self._fail
        return super().__getattribute__(name)

    async def _fail(self, *asked: object, **more: object) -> Any:
        raise SpoolError("input/output error")


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.acknowledged: list[str] = []
        self.stall = mock.patch("sesrelay.delivery.pump.STALL", DAY)  # the loop's clock is nobody's here: see `_pass`
        self.stall.start()
        self.run(self._begin())

    async def _begin(self) -> None:
        self.first, self.second = Fickle("first"), Fickle("second")
        self.folder = Fickle(FOLDER)  # the last rung of a bounce that nobody takes
        retry = RetryPolicy((30.0, 120.0), max_age=3 * DAY, delay_warning=4 * 3600.0)
        self.rules: dict[str, tuple[str, ...]] = {"two.example": ("first", "second")}
        with mock.patch("engine_rig.MemorySpool", Faltering):
            self.rig = Rig(self.first, self.second, self.folder, rules=self.rules, retry=retry)
        self._watch()

    def _watch(self) -> None:
        rig = self.rig
        self.watch = ClockWatch(rig.spool, rig.scheduler, rig.clock, rig.witness)  # type: ignore[arg-type]
        self.sweeper = Housekeeping(rig.spool, rig.scheduler, rig.clock, rig.witness)  # type: ignore[arg-type]

    def run(self, call: Awaitable[T]) -> T:
        async def do() -> T:
            found = await call
            if hasattr(self, "rig"):
                await self.rig.quiet()
            return found

        return self.loop.run_until_complete(do())

    def attempt(self, call: Awaitable[object]) -> None:
        """Run what may find the store failing."""
        with suppress(SpoolError):
            self.run(call)

    # --- what happens ---

    @initialize(answers=st.sampled_from(list(ANSWERS)))
    def begin(self, answers: str) -> None:
        self.accept(["one.example", "two.example"], 2, answers)

    @rule(
        domains=st.lists(st.sampled_from(["one.example", "two.example"]), min_size=1, max_size=4),
        recipients=st.integers(1, 3),
        answers=st.sampled_from(list(ANSWERS)),
    )
    def accept(self, domains: list[str], recipients: int, answers: str) -> None:
        self.first.answers = answers
        to = [f"r{n}@{'ab'[n % 2]}.example.org" for n in range(recipients)]
        for domain in domains:
            self.acknowledged.append(self.run(self.rig.submit(*to, sender=f"s@{domain}")))

    @rule(answers=st.sampled_from(list(ANSWERS)), which=st.booleans())
    def answers(self, answers: str, which: bool) -> None:
        (self.first if which else self.second).answers = answers
        self.attempt(self._pass(40.0))

    @rule(open_=st.booleans(), which=st.booleans())
    def hang_or_answer(self, open_: bool, which: bool) -> None:
        gate = (self.first if which else self.second).gate
        assert gate is not None
        if open_:
            gate.set()
            self.run(self.rig.quiet())
        else:
            gate.clear()

    @rule(seconds=st.sampled_from([1.0, 40.0, 200.0, 5_000.0]))
    def wait(self, seconds: float) -> None:
        self.attempt(self._pass(seconds))

    async def _pass(self, seconds: float) -> None:
        self.rig.scheduler._pump.stall(False)  # a store that failed is asked again
        await self.rig.pass_time(seconds)

    @rule(failing=st.frozensets(st.sampled_from(ASKED)))
    def the_store_fails(self, failing: frozenset[str]) -> None:
        self.rig.spool.failing = failing  # type: ignore[attr-defined]
        self.run(self.rig.quiet())

    @rule(
        what=st.one_of(
            st.tuples(st.just("clock"), st.sampled_from([-3600.0, -7.0, 30.0, DAY / 4])),
            st.tuples(st.just("sweep")),
            st.tuples(st.just("operate"), st.sampled_from(["hold", "release", "retry"]), st.integers(0, 99), st.booleans()),
            st.tuples(st.just("reload"), st.booleans()),
        )
    )
    def somebody_steps_in(self, what: tuple[Any, ...]) -> None:
        self.attempt(getattr(self, f"_{what[0]}")(*what[1:]))

    async def _clock(self, seconds: float) -> None:
        self.rig.clock.now += seconds
        await self.watch.look()

    async def _sweep(self) -> None:
        await self.sweeper.sweep()

    async def _operate(self, verb: Verb, place: int, everything: bool) -> None:
        name = self.acknowledged[place % len(self.acknowledged)]
        wanted = Filter(states=(State.QUEUED, State.HELD, State.IN_FLIGHT)) if everything else Filter(ids=(name,))
        await self.rig.spool.change(verb, wanted, self.rig.clock.now)
        await self.rig.scheduler.refresh()

    async def _reload(self, alone: bool) -> None:
        ways = (self.first,) if alone else (self.first, self.second)
        await self.rig.scheduler.swap(self.rig.snapshot(*ways, self.folder, rules={} if alone else self.rules))

    @rule()
    def die_and_live_again(self) -> None:
        self.run(self._die())

    async def _die(self) -> None:
        rig, old = self.rig, self.rig.scheduler
        rig.spool.failing = frozenset()  # type: ignore[attr-defined]  # with such a store there is no start
        for way in (self.first, self.second, self.folder):
            way.unsure.update(way.under)
            way.under.clear()
        await old.drain(0.0)  # cuts what is under way, as death does: nothing of it is settled
        rig.spool.forget_claims()
        rig.clock.advance(1.0)  # a start takes its time, and new ids begin behind the old
        rig.scheduler = Scheduler(rig.spool, old.snapshot, rig.clock, rig.witness)  # type: ignore[arg-type]
        rig.acceptance = Acceptance(rig.spool, rig.scheduler, rig.clock, rig.witness)  # type: ignore[arg-type]
        self._watch()
        await rig.scheduler.start()

    # --- what holds ---

    @invariant()
    def each_waits_or_has_ended_once(self) -> None:
        for name in self.acknowledged:
            record = self.run(self.rig.record(name))
            for each in record.deliveries:
                to = each.delivery.recipient.address
                ends = [event for event in record.events if event.recipient == to and event.event in ("delivered", "failed")]
                assert len(ends) == each.delivery.state.final, (each, ends)
                sent, spare = (
                    sum(getattr(way, what)[each.delivery.id] for way in (self.first, self.second, self.folder) for what in names)
                    for names in (("sent",), ("unsure", "put_off"))
                )
                assert sent <= 1 + spare, "sent again without a doubt or a deferral"
                reports = [event for event in record.events if event.recipient == to and event.event == "bounced"]
                assert len([event for event in reports if each.end in ("failed", "expired")]) <= 2, "one of a delay, one of the end"

    def teardown(self) -> None:
        try:
            self.run(self._everything_ends())
        finally:
            self.stall.stop()
            self.loop.close()

    async def _everything_ends(self) -> None:
        self.rig.spool.failing = frozenset()  # type: ignore[attr-defined]
        for way in (self.first, self.second, self.folder):
            way.answers = "taken"
            assert way.gate is not None
            way.gate.set()
        await self.rig.quiet()
        await self.rig.scheduler.swap(self.rig.snapshot(self.first, self.second, self.folder, rules=self.rules))
        for _ in range(6):
            await self.rig.spool.change("release", Filter(states=(State.HELD,)), self.rig.clock.now)
            await self.rig.spool.change("retry", Filter(states=(State.QUEUED,)), self.rig.clock.now)
            self.rig.scheduler.hurry()
            await self._pass(61.0)
        assert await self.rig.waiting() == 0, "nothing stalls for good"
        lanes = self.rig.scheduler._lanes
        assert lanes.fresh.octets == 0
        assert not any(len(lane) or lane.inflight or lane.claiming for lane in lanes.values()), "memory knows that all has ended"
        for name in self.acknowledged:
            assert all(state.final for state in await self.rig.states(name))


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
