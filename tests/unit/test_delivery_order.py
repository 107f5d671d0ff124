"""Who goes first where the way is narrow: priorities, sites in turn, and that memory full of one hides none of the others."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping

import pytest

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.delivery.lane import ROOM
from sesrelay.mail.delivery import Batch, DeliveryId, Priority, State
from sesrelay.mail.outcome import Deferred, Delivered, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.policy.fairness import PASSED_OVER_MAX
from sesrelay.policy.pace import Pace
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import Content, Filter

RULES = {
    "high.example": {"transports": ("t",), "priority": Priority.HIGH},
    "a.example": {"transports": ("t",)},
    "b.example": {"transports": ("t",)},
    "low.example": {"transports": ("t",), "priority": Priority.LOW},
}


def slow(**options: object) -> ScriptedTransport:
    """Return a way out that takes one recipient a second."""
    return ScriptedTransport("t", bucket=Pace(1.0), **options)  # type: ignore[arg-type]


async def submit(rig: Rig, sender: str, n: int, to: str = "") -> None:
    for serial in range(n):
        await rig.submit(f"{sender}-{to}{serial}@example.org", sender=f"x@{sender}.example")
    await rig.quiet()


async def sent(rig: Rig, way: ScriptedTransport, n: int) -> list[str]:
    """Let time pass until `n` more went out, and return of whom, in order."""
    before = len(way.seen)
    for _ in range(n):
        await rig.pass_time(1.0)
    return [recipients[0].partition("-")[0] for recipients, _ in way.seen[before:]]


def in_memory(rig: Rig) -> int:
    return sum(len(lane) for lane in rig.scheduler._lanes.values())


async def test_high_goes_next_though_memory_is_full_of_low() -> None:
    way = slow()
    rig = Rig(way, rules=RULES)
    await submit(rig, "low", ROOM + 100)
    assert in_memory(rig) == ROOM
    await submit(rig, "high", 3)
    assert in_memory(rig) == ROOM
    assert await sent(rig, way, 5) == ["high", "high", "high", "low", "low"]
    way.bucket = Pace(None)
    while await rig.waiting():
        await rig.pass_time(1.0)
    assert len(way.seen) == ROOM + 103, "what had to make way goes out too, and nothing twice"


async def test_high_that_waited_in_the_store_is_not_hidden_by_low_in_memory() -> None:
    answers: list[Outcome] = [Deferred(Reply(451, "4.2.0", "later"))]
    way = slow(answer=lambda to: answers.pop() if to.startswith("high") and answers else Delivered(OK))
    rig = Rig(way, rules=RULES, retry=RetryPolicy((30.0,), delay_warning=None))
    await submit(rig, "high", 1)
    await submit(rig, "low", ROOM + 100)
    order = await sent(rig, way, 40)
    assert order.count("high") == 1
    assert 28 <= order.index("high") <= 32, "when it is due again, and not behind what memory holds"


async def test_low_does_not_starve() -> None:
    way = slow()
    rig = Rig(way, rules=RULES)
    await submit(rig, "low", 5)
    await submit(rig, "high", 6 * PASSED_OVER_MAX)
    order = await sent(rig, way, 5 * PASSED_OVER_MAX)
    assert 3 <= order.count("low") <= 6
    assert order[:10] == ["high"] * 10


async def test_low_does_not_starve_where_the_others_keep_every_attempt_busy() -> None:
    at_once = 10
    going, order = asyncio.Semaphore(0), list[str]()

    class Slow(ScriptedTransport):
        async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
            order.append(batch.deliveries[0].recipient.address.partition("-")[0])
            await going.acquire()
            return {delivery.id: Delivered(OK) for delivery in batch.deliveries}

    rig = Rig(Slow("t", concurrency=at_once), rules=RULES)
    await submit(rig, "high", 12 * PASSED_OVER_MAX)
    await submit(rig, "low", 5)
    for _ in range(6 * PASSED_OVER_MAX):
        going.release()
        await rig.quiet()
    assert 3 <= order.count("low") <= 5


async def test_sites_of_one_priority_take_turns_in_memory() -> None:
    way = slow()
    rig = Rig(way, rules=RULES)
    await submit(rig, "a", ROOM + 50)
    await submit(rig, "b", 20)
    assert Counter(await sent(rig, way, 30)) == {"a": 15, "b": 15}


async def test_turns_are_by_recipients() -> None:
    way = ScriptedTransport("t", bucket=Pace(1.0), batch_limit=10)
    rig = Rig(way, rules=RULES)
    for _ in range(10):
        await rig.submit(*(f"a-{n}@example.org" for n in range(10)), sender="x@a.example")
    await submit(rig, "b", 60)
    way.bucket = Pace(1e9, burst=1e9, tokens=1e9)
    way.concurrency = 1
    await rig.pass_time(1.0)
    await rig.quiet()
    order = [recipients[0].partition("-")[0] for recipients, _ in way.seen]
    first = order[: order.index("a", order.index("a", 5) + 1) + 1]
    assert first.count("b") >= 10, order


@pytest.mark.parametrize("sites", [3, 40])
async def test_after_a_restart_each_priority_and_site_is_found_in_the_store(sites: int) -> None:
    rules = {f"s{n}.example": {"transports": ("t",)} for n in range(sites)} | RULES
    way = slow()
    rig = Rig(way, rules=rules)
    await submit(rig, "low", ROOM + 50)
    for n in range(sites):
        await submit(rig, f"s{n}", 3 if n else ROOM + 50)
    await submit(rig, "high", 2)
    await rig.die()
    way = slow()
    rig = Rig(way, rules=rules, before=rig)
    await rig.scheduler.start()
    await rig.quiet()
    assert in_memory(rig) <= ROOM
    order = [way.seen[0][0][0].partition("-")[0], *await sent(rig, way, sites + 3)]
    assert order[:2] == ["high", "high"]
    normal = [site for site in order[2:] if site != "low"]
    assert Counter(normal[:sites]) == {f"s{n}": 1 for n in range(sites)}


async def test_all_that_waits_goes_out_once_whatever_memory_holds() -> None:
    way = ScriptedTransport("t", bucket=Pace(0.0))
    rules = {f"s{n}.example": {"transports": ("t",), "priority": Priority(n % 3)} for n in range(30)}
    rig = Rig(way, rules=rules)
    for n in range(30):
        await submit(rig, f"s{n}", 40)
    assert in_memory(rig) <= ROOM
    way.bucket = Pace(None)
    for _ in range(60):
        await rig.pass_time(1.0)
        if not await rig.waiting():
            break
    assert len(way.seen) == len({recipients for recipients, _ in way.seen}) == 1200
    assert all(lane.wake == math.inf for lane in rig.scheduler._lanes.values())


class Reserving(ScriptedTransport):
    """A way out whose quota is all but used up: what is left is for urgent mail."""

    reserving = True

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 60.0 if self.reserving and priority is not Priority.HIGH else 0.0


async def test_urgent_mail_passes_what_waits_for_a_quotas_sake_however_much_there_is_of_it() -> None:
    way, urgent = Reserving("t"), 3 * PASSED_OVER_MAX
    rig = Rig(way, rules=RULES)
    for n in range(5):
        await rig.submit(f"n{n}@example.org", sender="a@a.example")
        await rig.submit(f"l{n}@example.org", sender="a@low.example")
    await rig.quiet()
    assert way.seen == []
    for n in range(urgent):
        await rig.submit(f"u{n}@example.org", sender="a@high.example")
    await rig.quiet()
    assert sorted(to for (to,), _ in way.seen) == sorted(f"u{n}@example.org" for n in range(urgent))
    way.reserving = False
    await rig.pass_time(60.0)
    assert len(way.seen) == urgent + 10


async def test_low_that_is_stuck_at_a_slow_host_leaves_a_way_for_what_is_urgent() -> None:
    way = ScriptedTransport("t", gate=asyncio.Event(), concurrency=5)
    rig = Rig(way, rules=RULES)
    await submit(rig, "low", 20)
    assert way.under_way == 4
    await submit(rig, "a", 3)
    assert way.under_way == 5
    assert (
        len([one for one in await rig.everything() if one.deliveries[0].delivery.attempts and "a.example" in one.message.sender])
        == 1
    )
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert len(way.seen) == 23


async def test_what_is_released_while_memory_has_much_of_its_stream_goes_without_a_look_at_the_queue() -> None:
    way = ScriptedTransport("t", concurrency=1, gate=asyncio.Event())
    rig = Rig(way, rules=RULES)
    await rig.spool.park(Filter(recipient="a-kept@example.org"), rig.clock.wall())
    kept = await rig.submit("a-kept@example.org", sender="x@a.example")
    await submit(rig, "a", ROOM // 2)
    assert in_memory(rig) == ROOM // 2 - 1
    assert await rig.spool.change("release", Filter(ids=(kept,)), rig.clock.wall()) == 1
    await rig.scheduler.refresh()  # as after each change by an operator
    await rig.quiet()
    assert way.gate is not None
    way.gate.set()
    for _ in range(ROOM // 20):
        await rig.quiet()
    assert await rig.states(kept) == [State.DELIVERED]
