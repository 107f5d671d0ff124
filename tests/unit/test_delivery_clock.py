"""A clock that is set: nothing expires without one more attempt, and nothing stalls."""

from __future__ import annotations

import pytest

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.delivery.clock_watch import ClockWatch
from sesrelay.delivery.housekeeping import Housekeeping
from sesrelay.mail.delivery import State
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.limits import SLOT, RouteLimits
from sesrelay.policy.retry import RetryPolicy

DAY, HOUR = 86400.0, 3600.0
LATER = Deferred(Reply(451, "4.7.1", "Greylisted"), Scope.RECIPIENT)
DOWN = Deferred(Reply(451, "4.4.1", "Down"), Scope.NEXTHOP, reason=PauseReason.UNAVAILABLE)


class Timed(Rig):
    """A rig whose way out answers what it is told to, and whose wall clock can be set alone."""

    def __init__(self, answer: Outcome) -> None:
        self.answer = answer
        self.out = ScriptedTransport("out", answer=lambda recipient: self.answer)
        super().__init__(self.out, retry=RetryPolicy((30.0, 120.0), max_age=3 * DAY, delay_warning=4 * HOUR))
        self.watch = ClockWatch(self.spool, self.scheduler, self.clock, self.witness)  # type: ignore[arg-type]
        self.sweeper = Housekeeping(self.spool, self.scheduler, self.clock, self.witness)  # type: ignore[arg-type]

    async def set_clock(self, seconds: float) -> None:
        self.clock.now += seconds
        await self.watch.look()
        await self.quiet()


async def test_ten_days_at_once_expire_nothing_without_one_more_attempt() -> None:
    rig = Timed(LATER)
    for n in range(5):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()
    tried = len(rig.out.seen)
    rig.answer = Delivered(OK, "remote")
    await rig.set_clock(10 * DAY)
    await rig.sweeper.sweep()
    await rig.pass_time(0.0)
    assert len(rig.out.seen) == tried + 5
    ends = [event[2].end for event in rig.witness.events("settled") if event[2].state.final]  # type: ignore[attr-defined]
    assert ends == ["delivered"] * 5
    assert await rig.waiting() == 0
    assert not any(record.message.report for record in await rig.everything()), "no report of a delay that never was"


async def test_ten_days_at_once_expire_what_is_refused_once_more() -> None:
    rig = Timed(LATER)
    name = await rig.submit("b@example.org")
    await rig.quiet()
    await rig.set_clock(10 * DAY)
    await rig.pass_time(0.0)
    assert len([to for to, _ in rig.out.seen if to == ("b@example.org",)]) == 2
    assert await rig.states(name) == [State.FAILED]


@pytest.mark.parametrize("obstacle", [LATER, DOWN])
async def test_an_hour_back_stalls_nothing(obstacle: Deferred) -> None:
    rig = Timed(obstacle)
    name = await rig.submit("b@example.org")
    await rig.quiet()
    (before,) = (await rig.record(name)).deliveries
    assert before.delivery.state is State.QUEUED
    await rig.set_clock(-HOUR)
    (after,) = (await rig.record(name)).deliveries
    assert after.delivery.due == pytest.approx(before.delivery.due - HOUR)
    assert all(pause.until == pytest.approx(before.delivery.due - HOUR, abs=1.0) for pause in rig.scheduler.pauses)
    await rig.set_clock(0.0)
    assert (await rig.record(name)).deliveries == (after,), "one step is followed once"
    rig.answer = Delivered(OK, "remote")
    await rig.pass_time(before.delivery.due - HOUR - rig.clock.now + 0.1)
    assert await rig.states(name) == [State.DELIVERED]
    fresh = await rig.submit("c@example.org")
    await rig.quiet()
    assert await rig.states(fresh) == [State.DELIVERED]
    assert fresh > name, "ids go on growing"


async def test_a_clock_that_is_slewed_or_a_loop_that_was_busy_is_no_step() -> None:
    rig = Timed(LATER)
    name = await rig.submit("b@example.org")
    await rig.quiet()
    (before,) = (await rig.record(name)).deliveries
    rig.clock.advance(7200.0)
    await rig.set_clock(-4.0)
    (after,) = (await rig.record(name)).deliveries
    assert after.delivery.due == before.delivery.due
    assert rig.witness.events("notice") == []


async def test_a_cap_waits_no_longer_where_the_clock_is_set_back() -> None:
    capped = {"a.example": {"transports": ("out",), "limits": RouteLimits(hourly_cap=2)}}
    rig = Timed(Delivered(OK, "remote"))
    await rig.scheduler.swap(rig.snapshot(rig.out, rules=capped))
    for n in range(3):
        await rig.submit(f"b{n}@example.org", sender="x@a.example")
    await rig.quiet()
    await rig.set_clock(-10 * DAY)
    assert len(rig.out.seen) == 2, "nor is it open at once"
    assert [pause.since <= rig.clock.now < pause.until for pause in rig.scheduler.waits()] == [True]
    again = Rig(rig.out, rules=capped, before=rig)
    await rig.die()
    await again.scheduler.start()
    await again.pass_time(HOUR / 2)
    assert len(rig.out.seen) == 2, "after a restart neither"
    await again.pass_time(HOUR / 2 + 2 * SLOT)
    assert len(rig.out.seen) == 3
