"""When what waits before a way out that is paused goes by the next one: by the timers alone, with nothing else to wake a lane."""

import asyncio
from collections.abc import Mapping

import pytest

from engine_rig import OK, Rig, ScriptedTransport
from fakes import FakeClock
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import Content, Filter
from time_ahead import run_ahead

LATER = Reply(451, "4.2.0", "later")
SUSPENDED = Deferred(LATER, Scope.NEXTHOP, PauseReason.SUSPENDED, "Ask AWS.")
HICCUP = Deferred(LATER, Scope.NEXTHOP, PauseReason.UNAVAILABLE, "See.", tolerance=5)


class Slow(ScriptedTransport):
    """Takes a moment for each call, as a real one does; `hangs`: how long the calls after the first so many take."""

    hangs: tuple[int, float] = (1_000_000, 0.0)
    calls: int = 0

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        self.calls += 1
        await asyncio.sleep(self.hangs[1] if self.calls > self.hangs[0] else 0.001)
        return await super().deliver(batch, content)


async def waits(rig: Rig, seconds: float) -> int:
    """Let so much time pass, and return how much is not delivered."""
    await asyncio.sleep(seconds)
    return await rig.waiting()


@pytest.mark.parametrize("answer", [SUSPENDED, HICCUP])
@pytest.mark.parametrize("messages", [5, 10, 3000])
def test_all_that_waits_goes_the_next_way_in_time(answer: Outcome, messages: int) -> None:
    async def scenario(clock: FakeClock) -> None:
        first, second = Slow("t", answer=lambda to: answer, failover_after=2.0), Slow("u")
        rig = Rig(first, second, rules={"example.com": ("t", "u")}, clock=clock)
        for n in range(messages):
            await rig.submit(f"b{n}@example.org")
        assert await waits(rig, 1.5) == min(messages, 1000), "as much as is listed"
        assert await waits(rig, 3.0) == 0

    run_ahead(scenario)


def test_what_comes_due_after_the_others_have_moved_follows_them() -> None:
    async def scenario(clock: FakeClock) -> None:
        answers: list[Outcome] = [Deferred(LATER, Scope.MESSAGE), SUSPENDED]
        first, second = Slow("t", answer=lambda to: answers.pop(0), failover_after=2.0), Slow("u")
        retry = RetryPolicy((4.0,), max_age=10_000.0, delay_warning=None)
        rig = Rig(first, second, rules={"example.com": ("t", "u")}, retry=retry, clock=clock)
        for n in range(2):
            await rig.submit(f"b{n}@example.org")
        assert await waits(rig, 3.0) == 1, "the other waits for its own retry"
        assert await waits(rig, 6.0) == 0

    run_ahead(scenario)


def test_a_probe_that_is_not_answered_keeps_nobody_from_the_next_way() -> None:
    async def scenario(clock: FakeClock) -> None:
        down = Deferred(LATER, Scope.TRANSPORT, PauseReason.UNAVAILABLE, "See.", retry_after=8.0)
        answers: list[Outcome] = [down]
        first = Slow("t", answer=lambda to: answers.pop(0) if answers else Delivered(OK), failover_after=10.0, by_domain=True)
        first.hangs = (1, 60.0)
        rig = Rig(first, Slow("u"), rules={"example.com": ("t", "u")}, clock=clock)
        found = await rig.submit("b@example.net")
        await asyncio.sleep(0.1)
        assert await rig.spool.change("delete", Filter(ids=(found,)), clock.wall()) == 1
        for n in range(5):
            await rig.submit(f"b{n}@example.org")
        assert await waits(rig, 9.0) == 5
        assert await waits(rig, 3.0) == 1, "all but the probe"
        assert await waits(rig, 60.0) == 0

    run_ahead(scenario)
