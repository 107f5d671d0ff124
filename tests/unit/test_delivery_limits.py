"""What a route's own limits keep waiting, without an attempt and in nobody's way; mail that is to leave later, and by another way out."""

import asyncio
from collections import Counter

import pytest

from engine_rig import CONTENT, OK, Rig, ScriptedTransport
from sesrelay.control import envelopes
from sesrelay.control.desk import SpoolDesk
from sesrelay.delivery import pump, supply
from sesrelay.delivery.housekeeping import Housekeeping
from sesrelay.delivery.intake import SCHEDULED
from sesrelay.mail.dates import rfc3339
from sesrelay.mail.delivery import Priority, State
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.limits import DAY, HOUR, SLOT, RouteLimits, WarmUp
from sesrelay.policy.pace import Pace
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import Claim, Filter, SpoolError
from turns import Turns

LATER, NO = Reply(451, "4.2.0", "later"), Reply(550, "5.1.1", "no such user")


def rules(**limits: object) -> dict[str, dict[str, object]]:
    return {
        "a.example": {"transports": ("t",), "limits": RouteLimits(**limits)},  # type: ignore[arg-type]
        "b.example": {"transports": ("t",)},
    }


async def submit(rig: Rig, site: str, n: int) -> list[str]:
    ids = [await rig.submit(f"{site}-{serial}@example.org", sender=f"x@{site}.example") for serial in range(n)]
    await rig.quiet()
    return ids


def sent(way: ScriptedTransport) -> Counter[str]:
    return Counter(to.partition("-")[0] for recipients, _ in way.seen for to in recipients)


async def restarted(rig: Rig, rules: dict[str, dict[str, object]]) -> tuple[Rig, ScriptedTransport]:
    """Let the engine die, and start another one on its store; return that, with its way out."""
    await rig.die()
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules, before=rig)
    await rig.scheduler.start()
    return rig, way


async def test_a_rate_holds_up_its_own_route_alone() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(rate=0.5))
    await submit(rig, "a", 20)
    await submit(rig, "b", 20)
    assert sent(way) == {"a": 1, "b": 20}
    for _ in range(10):
        await rig.pass_time(1.0)
    assert sent(way)["a"] == 6


async def test_a_rate_wakes_its_lane_by_itself() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(rate=50.0))
    rig.clock.monotonic = asyncio.get_running_loop().time  # type: ignore[method-assign]
    rig.scheduler.gates._gates["a.example"].pace.at = rig.clock.monotonic()
    rig.scheduler.gates._gates["a.example"].pace.tokens = 1.0
    await submit(rig, "a", 5)
    async with asyncio.timeout(10):
        while sent(way)["a"] < 5:
            await asyncio.sleep(0.01)


async def test_attempts_at_once_are_counted_over_all_lanes() -> None:
    way = ScriptedTransport("t", gate=asyncio.Event(), by_domain=True)
    rig = Rig(way, rules=rules(concurrency=3))
    for n in range(10):
        await rig.submit(f"a-{n}@d{n}.example", sender="x@a.example")
    await rig.submit("b-1@d1.example", sender="x@b.example")
    await rig.quiet()
    assert way.under_way == 4
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert sent(way) == {"a": 10, "b": 1}
    assert way.most_under_way == 4


@pytest.mark.parametrize(
    ("limits", "wait"),
    [({"hourly_cap": 7}, HOUR + SLOT), ({"daily_cap": 7}, DAY + SLOT), ({"warm_up": WarmUp(0.0, (7,) * 40_000)}, DAY)],
)
async def test_a_cap_is_kept_and_what_waits_goes_on_by_itself(limits: dict[str, object], wait: float) -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(**limits))
    rig.clock.now = rig.clock.now // DAY * DAY
    ids = await submit(rig, "a", 20)
    await submit(rig, "b", 20)
    assert sent(way) == {"a": 7, "b": 20}
    (waits,) = rig.scheduler.waits()
    assert (waits.transport, waits.domain, waits.route, waits.until) == ("t", None, "a.example", rig.clock.now + wait)
    assert next(iter(limits)) in waits.remedy
    await rig.pass_time(wait - 2.0)
    assert sent(way)["a"] == 7
    records = [(await rig.record(each)).deliveries[0].delivery for each in ids]
    assert [one.attempts for one in records] == [1] * 7 + [0] * 13
    await rig.pass_time(2.0)
    assert sent(way)["a"] == 14
    await rig.pass_time(wait)
    assert sent(way)["a"] == 20
    assert list(rig.scheduler.waits()) == []


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_waits_for_a_cap_of_ours_does_not_age(restarted: bool) -> None:
    patience = RetryPolicy((30.0, 120.0), max_age=2_000.0, delay_warning=1_000.0)
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(hourly_cap=1), retry=patience)
    rig.clock.now = rig.clock.now // DAY * DAY

    async def minutes(n: int) -> None:
        keeper = Housekeeping(rig.spool, rig.scheduler, rig.clock, rig.witness)  # type: ignore[arg-type]
        for _ in range(n):
            await rig.pass_time(60.0)
            await keeper.sweep()
        await rig.quiet()

    await submit(rig, "a", 1)
    (late,) = await submit(rig, "a", 1)
    way.answer = lambda to: Deferred(LATER, Scope.RECIPIENT)
    await minutes(33)
    if restarted:
        await rig.die()
        rig = Rig(way, rules=rules(hourly_cap=1), retry=patience, before=rig)
        await rig.scheduler.start()
    await minutes(33)
    (record,) = (await rig.record(late)).deliveries
    assert (record.delivery.state, record.delivery.attempts > 0) == (State.QUEUED, True), "it is older than max_age, and just tried"
    assert not [each for each in await rig.everything() if each.message.report], "nor is anybody told that it is late"
    await minutes(40)
    (record,) = (await rig.record(late)).deliveries
    assert (record.delivery.state, record.end) == (State.FAILED, "expired"), "the other side had its time"


async def test_a_batch_is_cut_to_what_a_cap_leaves() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=30))
    queue_id = await rig.submit(*(f"a-{n}@example.org" for n in range(40)), sender="x@a.example")
    await rig.quiet()
    assert [len(recipients) for recipients, _ in way.seen] == [30]
    assert Counter(await rig.states(queue_id)) == {State.DELIVERED: 30, State.QUEUED: 10}
    await rig.pass_time(DAY + SLOT)
    assert sent(way)["a"] == 40


async def test_what_was_sent_counts_after_a_restart() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=5))
    await submit(rig, "a", 3)
    rig, way = await restarted(rig, rules(daily_cap=5))
    await submit(rig, "a", 4)
    assert sent(way)["a"] == 2
    rig.clock.advance(DAY + SLOT)
    rig, way = await restarted(rig, rules(daily_cap=5))
    await rig.quiet()
    assert sent(way)["a"] == 2, "what waited at the end goes when its time has come"


async def test_what_could_not_be_counted_is_counted_with_what_comes_next() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=5))
    count_sent = rig.spool.count_sent

    async def fail(*_: object) -> None:
        raise SpoolError("full")

    rig.spool.count_sent = fail  # type: ignore[method-assign]
    await submit(rig, "a", 3)
    rig.spool.count_sent = count_sent  # type: ignore[method-assign]
    rig.clock.advance(2 * SLOT)
    await submit(rig, "a", 1)
    rig, way = await restarted(rig, rules(daily_cap=5))
    await submit(rig, "a", 4)
    assert sent(way)["a"] == 1


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(Deferred(LATER), False), (Failed(NO), False), (Deferred(LATER, Scope.MESSAGE, ambiguous=True), True), (Delivered(OK), True)],
)
async def test_only_what_was_or_may_have_been_taken_counts(answer: Outcome, counts: bool) -> None:
    way = ScriptedTransport("t", answer=lambda to: answer if to.startswith("a-0") else Delivered(OK))
    rig = Rig(way, rules=rules(daily_cap=3), retry=RetryPolicy((9e5,), delay_warning=None))
    rig.snapshot(way)
    await submit(rig, "a", 6)
    assert sum(to.startswith("a-") and to != "a-0@example.org" for recipients, _ in way.seen for to in recipients) == (
        2 if counts else 3
    )


@pytest.mark.parametrize(("answer", "counted"), [(Deferred(LATER), 5), (Delivered(OK), 6)])
async def test_what_was_not_taken_counts_after_a_restart_no_more_than_before(answer: Outcome, counted: int) -> None:
    way = ScriptedTransport("t", answer=lambda to: answer if to.startswith("a-5") else Delivered(OK))
    rig = Rig(way, rules=rules(daily_cap=10), retry=RetryPolicy((9e5,), delay_warning=None))
    await submit(rig, "a", 6)
    rig, way = await restarted(rig, rules(daily_cap=10))
    await submit(rig, "a", 9)
    assert sent(way)["a"] == 10 - counted


async def test_a_message_that_could_not_be_stored_counts_for_nothing() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=2, concurrency=1))
    accept = rig.spool.accept

    async def fail(*_: object, **__: object) -> None:
        raise SpoolError("full")

    rig.spool.accept = fail  # type: ignore[method-assign]
    for _ in range(5):
        assert (await rig.submit("a-1@example.org", sender="x@a.example")).startswith("451")
    rig.spool.accept = accept  # type: ignore[method-assign]
    await submit(rig, "a", 3)
    assert sent(way)["a"] == 2


async def test_a_reload_raises_a_cap_at_once_and_keeps_the_count() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=2))
    await submit(rig, "a", 10)
    assert sent(way)["a"] == 2
    await rig.scheduler.swap(rig.snapshot(way, rules=rules(daily_cap=6)))
    await rig.quiet()
    assert sent(way)["a"] == 6
    await rig.scheduler.swap(rig.snapshot(way, rules=rules()))
    await rig.quiet()
    assert sent(way)["a"] == 10


async def test_a_lane_waits_for_no_cap_that_is_no_more() -> None:
    way, other = ScriptedTransport("t"), ScriptedTransport("u")
    rig = Rig(way, other, rules=rules(daily_cap=2))
    await submit(rig, "a", 10)
    await rig.scheduler.swap(rig.snapshot(way, other, rules={"a.example": ("u",)}))
    await rig.quiet()
    assert (sent(way)["a"], sent(other)["a"]) == (2, 8)
    assert all(lane.idle for lane in rig.scheduler._lanes.values())


async def test_what_a_reload_puts_under_a_cap_waits_for_it_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.RECIPIENT), gate=asyncio.Event())
    rig = Rig(way)
    (queue_id,) = await submit(rig, "a", 1)  # under way by the default route while the site gets one of its own
    capped = rules(hourly_cap=1)
    await rig.scheduler.swap(rig.snapshot(way, rules=capped))
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert (await rig.record(queue_id)).deliveries[0].delivery.placement.site == "default", "the store has it as it was"
    way.answer = lambda to: Delivered(OK)
    await submit(rig, "a", 1)
    assert sent(way)["a"] == 2
    asked, claim = 0, rig.spool.claim

    async def counted(*args: object, **more: object) -> Claim:
        nonlocal asked
        asked += 1
        return await claim(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.spool, "claim", counted)
    await rig.pass_time(40.0)
    assert asked < 10, "it is not claimed and given back without end"
    assert sent(way)["a"] == 2
    await rig.pass_time(HOUR + SLOT)
    assert sent(way)["a"] == 3
    assert await rig.waiting() == 0


async def test_a_cap_that_is_reached_keeps_no_lane_of_others_in_memory() -> None:
    grey = {f"b-{n}@d{n}.example" for n in range(20)}

    def answer(to: str) -> Outcome:
        return Deferred(LATER, Scope.RECIPIENT) if to in grey else Delivered(OK)

    way = ScriptedTransport("t", answer=answer, by_domain=True)
    rig = Rig(way, rules=rules(daily_cap=1))
    await submit(rig, "a", 2)
    for to in sorted(grey):
        await rig.submit(to, sender="x@b.example")
    await rig.quiet()
    grey.clear()
    for _ in range(2):
        await rig.pass_time(40.0)
    for lane in rig.scheduler._lanes.values():
        if lane.timer is not None:  # as if it had rung
            lane.timer.cancel()
            rig.scheduler._lanes._rung(lane)
    await rig.quiet()
    assert sent(way) == {"a": 1, "b": 20 + 20}
    assert [lane.key.nexthop for lane in rig.scheduler._lanes.values()] == ["example.org"], "where the capped site has mail"


async def test_a_capped_site_fills_no_memory_that_others_need() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=rules(daily_cap=1))
    await submit(rig, "a", 700)
    assert sum(len(lane) for lane in rig.scheduler._lanes.values()) == 0
    way.gate = asyncio.Event()
    await submit(rig, "b", 10)
    way.gate.set()
    await rig.quiet()
    assert sent(way) == {"a": 1, "b": 10}


async def test_the_priority_of_a_header_stays_with_the_message() -> None:
    way = ScriptedTransport("t", gate=asyncio.Event())
    options = {
        "a.example": {"transports": ("t",), "priority": Priority.HIGH, "priority_header": "X-Urgency"},
        "b.example": {"transports": ("t",)},
    }
    rig = Rig(way, rules=options)
    bulk = await rig.submit("b@example.org", sender="x@a.example", content=b"Precedence: bulk\r\n" + CONTENT)
    trusted = await rig.submit("b@example.org", sender="x@a.example", content=b"X-Urgency: 3\r\nList-Id: <x>\r\n" + CONTENT)
    plain = await rig.submit("b@example.org", sender="x@a.example")
    named_by_none = b"X-Urgency: high\r\nPrecedence: bulk\r\n" + CONTENT
    other = await rig.submit("b@example.org", sender="x@b.example", content=named_by_none)
    await rig.scheduler.swap(rig.snapshot(way, rules=options))
    placed = [(await rig.record(each)).deliveries[0].delivery.placement.priority for each in (bulk, trusted, plain, other)]
    assert placed == [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW]
    way.gate = None


# --- mail that is to leave later ---------------------------------------------------------------------------------


async def test_mail_waits_for_its_release_and_ages_from_there() -> None:
    answers: list[Outcome] = [Deferred(LATER), Deferred(LATER), Failed(NO)]
    way = ScriptedTransport("t", answer=lambda to: answers.pop(0) if to.startswith("b") else Delivered(OK))
    rig = Rig(way, retry=RetryPolicy((30.0, 2 * HOUR), max_age=DAY, delay_warning=HOUR))
    queue_id = await rig.submit("b@example.org", release=rig.clock.now + 3 * DAY)
    await rig.quiet()
    (one,) = (await rig.record(queue_id)).deliveries
    assert (one.delivery.state, one.delivery.reason, one.delivery.due) == (State.QUEUED, SCHEDULED, rig.clock.now + 3 * DAY)
    await rig.pass_time(3 * DAY - 1.0)
    assert way.seen == []
    await rig.pass_time(1.0)
    assert len(way.seen) == 1
    await rig.pass_time(40.0)
    assert await rig.states(queue_id) == [State.QUEUED]
    assert len(way.seen) == 2, "no warning: it is a minute late, not three days"
    await rig.pass_time(3 * HOUR)
    assert await rig.states(queue_id) == [State.FAILED]


async def test_a_release_is_kept_across_restarts_and_the_route_found_anew() -> None:
    old, new = ScriptedTransport("old"), ScriptedTransport("new")
    rig = Rig(old)
    queue_id = await rig.submit("b@example.org", release=rig.clock.now + 100.0)
    await rig.die()
    rig.clock.advance(49.0)
    rig = Rig(new, before=rig)
    await rig.scheduler.start()
    await rig.quiet()
    assert await rig.states(queue_id) == [State.QUEUED]
    await rig.pass_time(50.0)
    assert await rig.states(queue_id) == [State.DELIVERED]
    assert (len(old.seen), len(new.seen)) == (0, 1)


async def test_a_release_that_is_past_goes_at_once() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org", release=rig.clock.now - 5.0)
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]


# --- another way out ---------------------------------------------------------------------------------------------


async def test_an_operator_moves_mail_to_another_way_out_and_it_stays_there() -> None:
    down = Deferred(LATER, Scope.NEXTHOP, PauseReason.UNAVAILABLE)
    first, other = ScriptedTransport("first", answer=lambda to: down, concurrency=1), ScriptedTransport("other")
    rig = Rig(first, other)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(6)]
    await rig.quiet()
    assert other.seen == []
    other.answer = lambda to: Deferred(LATER)
    desk = SpoolDesk(rig.spool, rig.clock, moved=rig.scheduler.move)
    assert await desk.change("retry", Filter(ids=tuple(ids[:4])), "other") == 4
    await rig.quiet()
    assert len(other.seen) == 4
    other.answer = lambda to: Delivered(OK)
    await rig.scheduler.swap(rig.snapshot(first, other))
    await rig.pass_time(60.0)
    assert [(await rig.states(each))[0] for each in ids] == [State.DELIVERED] * 4 + [State.QUEUED] * 2
    assert await desk.change("retry", Filter(ids=(ids[4],)), "nowhere") == 1  # no such way: the route's
    await rig.quiet()
    assert (await rig.record(ids[4])).deliveries[0].delivery.placement.lane.transport == "first"


def fail_twice(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store fail when mail is to be placed, as often as there are attempts whose end calls for it."""
    rekey, failures = rig.spool.rekey, [SpoolError("full"), SpoolError("full")]

    async def failing(*args: object, **more: object) -> object:
        if failures:
            raise failures.pop()
        return await rekey(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.spool, "rekey", failing)
    monkeypatch.setattr(supply, "AGAIN", 0.0)
    monkeypatch.setattr(pump, "STALL", 0.0)


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_in_flight_moves_when_its_attempt_has_ended(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ScriptedTransport("old", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, reason=PauseReason.THROTTLED))
    old.gate = asyncio.Event()
    new = ScriptedTransport("new")
    rig = Rig(old, new)
    desk = SpoolDesk(rig.spool, rig.clock, moved=rig.scheduler.move)
    ids = [await rig.submit(f"a-{n}@example.org") for n in range(2)]
    await rig.quiet()
    assert old.under_way > 0
    assert await desk.change("retry", Filter(ids=tuple(ids)), "new") == 2
    await rig.quiet()
    if fails:
        fail_twice(rig, monkeypatch)
    old.gate.set()
    await rig.quiet()
    assert list(rig.scheduler.pauses), "the old way is paused, and nothing is claimed from its lane"
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 2
    assert len(new.seen) == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_being_claimed_while_an_operator_chooses_moves_too(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ScriptedTransport("old"), ScriptedTransport("new")
    rig = Rig(old, new)
    at = rig.clock.now + 50.0
    queue_id = await rig.submit("a@example.org", release=at)
    await rig.quiet()
    claim, hold = rig.spool.claim, asyncio.Event()

    async def slowly(*args: object, **more: object) -> object:
        found = await claim(*args, **more)  # type: ignore[arg-type]
        await hold.wait()
        return found

    monkeypatch.setattr(rig.spool, "claim", slowly)
    await rig.pass_time(50.0)
    desk = SpoolDesk(rig.spool, rig.clock, moved=rig.scheduler.move)
    assert await desk.change("retry", Filter(ids=(queue_id,)), "new") == 1
    if fails:
        fail_twice(rig, monkeypatch)
    hold.set()
    await rig.quiet()
    assert not [told for told in rig.witness.events("trouble") if "task" in str(told)]
    assert await rig.states(queue_id) == [State.DELIVERED]
    assert (len(old.seen), len(new.seen)) == (0, 1)


async def test_a_start_places_anew_what_another_configuration_placed_and_only_then() -> None:
    old, new = ScriptedTransport("old"), ScriptedTransport("new")
    rig = Rig(old)
    queue_id = await rig.submit("b@example.org", release=rig.clock.now + DAY)
    passes = 0
    rekey = rig.spool.rekey

    async def counted(*args: object, **more: object) -> object:
        nonlocal passes
        passes += 1
        return await rekey(*args, **more)  # type: ignore[arg-type]

    rig.spool.rekey = counted  # type: ignore[method-assign, assignment]
    for way, wanted in ((new, 1), (new, 1), (old, 2)):
        await rig.die()
        rig = Rig(way, before=rig)
        await rig.scheduler.start()
        await rig.quiet()
        (one,) = (await rig.record(queue_id)).deliveries
        assert (one.delivery.placement.lane.transport, passes) == (way.name, wanted)
    await rig.scheduler.swap(rig.snapshot(new))
    await rig.die()
    rig = Rig(new, before=rig)
    await rig.scheduler.start()
    await rig.quiet()
    assert passes == 3, "the reload had placed it"


@pytest.mark.parametrize("at_once", [supply.SLICE, 3])
async def test_what_a_start_has_in_memory_is_placed_anew_too(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "SLICE", at_once)
    old, new = ScriptedTransport("old"), ScriptedTransport("new", answer=lambda to: Deferred(LATER, Scope.NEXTHOP))
    old.gate = new.gate = asyncio.Event()
    rig = Rig(old)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(40)]
    await rig.quiet()
    await rig.die()
    rig = Rig(new, before=rig)
    await rig.scheduler.start()
    await rig.quiet()
    kept = [(await rig.record(each)).deliveries[0].delivery for each in ids]
    new.gate.set()
    await rig.quiet()
    assert {one.placement.lane.transport for one in kept if one.pinned is None} == {"new"}, "also what waits for a slot"


async def test_another_queue_keeps_the_time_and_the_priority() -> None:
    rig = Rig(ScriptedTransport("t"))
    at = rig.clock.now + 500.0
    queue_id = await rig.submit("b@example.org", release=at, content=b"Precedence: bulk\r\n" + CONTENT)
    record = await rig.record(queue_id)
    taken = envelopes.submission(envelopes.document(record), await rig.spool.content(queue_id), rig.clock.now + 9.0)
    assert taken.message == record.message
    assert [one.due for one in taken.deliveries] == [at]


async def test_mail_goes_on_while_the_last_messages_are_told() -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP)))
    await submit(rig, "a", 20)
    asked: list[int] = []

    def note(*_: object) -> None:
        asked.append(turns.now)

    with Turns() as turns:
        assert len(await SpoolDesk(rig.spool, rig.clock, kept_back=note).recent(20)) == 20
    assert len(set(asked)) == 20


async def test_what_waits_behind_a_pause_or_a_cap_says_so_though_it_was_never_tried() -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, PauseReason.SUSPENDED), concurrency=1)
    other = ScriptedTransport("u")
    rig = Rig(way, other, rules=rules() | {"b.example": {"transports": ("u",), "limits": RouteLimits(hourly_cap=1)}})
    first = await submit(rig, "a", 3)
    capped = await submit(rig, "b", 2)
    await rig.quiet()
    desk = SpoolDesk(rig.spool, rig.clock, rig.scheduler.waits, kept_back=rig.scheduler.kept_back)
    (pause,) = rig.scheduler.pauses
    found = {one["id"]: one async for one in desk.listing(Filter())}
    assert {found[each]["reason"] for each in first} == {"suspended"}
    assert {found[each]["next_attempt"] for each in first} == {rfc3339(pause.until)}
    assert found[capped[1]]["reason"] == "hourly_cap"


async def test_what_waits_for_its_routes_rate_or_concurrency_says_so() -> None:
    way = ScriptedTransport("t", gate=asyncio.Event())
    limited = {"transports": ("t",), "limits": RouteLimits(rate=0.1)}, {"transports": ("t",), "limits": RouteLimits(concurrency=1)}
    rig = Rig(way, rules=dict(zip(("a.example", "b.example"), limited, strict=True)))
    by_rate, by_concurrency = await submit(rig, "a", 2), await submit(rig, "b", 2)
    desk = SpoolDesk(rig.spool, rig.clock, rig.scheduler.waits, kept_back=rig.scheduler.kept_back)
    rig.clock.advance(2.0)
    found = {one["id"]: (one["state"], one["reason"], one["next_attempt"]) async for one in desk.listing(Filter())}
    assert found[by_rate[1]] == ("queued", "rate", rfc3339(rig.clock.now + 8.0))
    assert found[by_concurrency[1]] == ("queued", "concurrency", rfc3339(rig.clock.now))
    assert {found[each[0]][:2] for each in (by_rate, by_concurrency)} == {("in_flight", None)}
    way.gate.set()
    await rig.quiet()
    await rig.pass_time(8.0)
    assert not await rig.waiting()


@pytest.mark.parametrize("whose", ["the transport's", "the route's"])
async def test_what_an_operator_has_deleted_costs_nothing_of_a_rate(whose: str) -> None:
    way = ScriptedTransport("t", bucket=Pace(1.0 if whose == "the transport's" else None))
    rig = Rig(way, rules=rules(**({"rate": 1.0} if whose == "the route's" else {})))
    first, *more = await submit(rig, "a", 30)
    good = await rig.submit("a-last@example.org", sender="x@a.example")
    assert await rig.states(first) == [State.DELIVERED]
    assert await rig.spool.change("delete", Filter(ids=tuple(more)), rig.clock.wall()) == 29
    await rig.pass_time(1.0)
    assert await rig.states(good) == [State.DELIVERED]
