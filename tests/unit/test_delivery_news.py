"""An event that comes after an answer was lost ends the doubt, wherever the delivery stands by then."""

from __future__ import annotations

import asyncio

import pytest

from engine_rig import Rig, ScriptedTransport
from sesrelay.delivery.news import Taken, believe
from sesrelay.mail.delivery import State
from sesrelay.mail.outcome import Deferred, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Filter

LOST = Reply(451, "4.4.2", "The answer was lost")


def lost(recipient: str) -> Outcome:
    return Deferred(LOST, Scope.MESSAGE, ambiguous=True)


def later(recipient: str) -> Outcome:
    return Deferred(Reply(451, "4.2.0", "Later"), Scope.MESSAGE)


async def hear(rig: Rig, queue_id: str, *recipients: str) -> int:
    settler = rig.scheduler.attempts.settler
    return await believe(Taken(queue_id, "ses-1", recipients), rig.spool, rig.spool, settler)


async def test_what_waits_to_be_repeated_is_not_sent_again() -> None:
    way = ScriptedTransport("ses", answer=lost)
    rig = Rig(way)
    queue_id = await rig.submit("B@Example.org", "c@example.org")
    await rig.quiet()
    assert await hear(rig, queue_id, "b@example.org") == 1
    record = await rig.record(queue_id)
    first, second = record.deliveries
    assert (first.delivery.state, first.end, first.remote_id) == (State.DELIVERED, "delivered", "ses-1")
    assert second.delivery.state is State.QUEUED
    told = [(event.event, event.outcome, event.recipient) for event in record.events if event.recipient == "B@Example.org"]
    assert told[-2:] == [("feedback", "delivered", "B@Example.org"), ("delivered", "delivered", "B@Example.org")]
    await rig.pass_time(1_000.0)
    assert [to for to, _ in way.seen] == [("B@Example.org", "c@example.org"), ("c@example.org",)]
    assert await hear(rig, queue_id) == 1
    assert await rig.waiting() == 0


async def test_what_is_held_in_doubt_ends_and_what_an_operator_released_too() -> None:
    way = ScriptedTransport("ses", answer=lost)
    rig = Rig(way)
    ids = [await rig.submit("b@example.org"), await rig.submit("b@example.org")]
    for _ in range(4):
        await rig.pass_time(1_000.0)
    assert [await rig.states(queue_id) for queue_id in ids] == [[State.HELD]] * 2
    await rig.spool.change("release", Filter(ids=(ids[1],)), rig.clock.wall())
    for queue_id in ids:
        assert await hear(rig, queue_id) == 1
        assert await rig.states(queue_id) == [State.DELIVERED]
    sent = len(way.seen)
    await rig.pass_time(1_000.0)
    assert len(way.seen) == sent


async def test_the_answer_of_a_repetition_under_way_changes_nothing() -> None:
    way = ScriptedTransport("ses", answer=lost)
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    way.gate = asyncio.Event()
    await rig.pass_time(1_000.0)
    assert await rig.states(queue_id) == [State.IN_FLIGHT]
    assert await hear(rig, queue_id) == 1
    way.gate.set()
    await rig.quiet()
    (ended,) = (await rig.record(queue_id)).deliveries
    assert (ended.delivery.state, ended.remote_id) == (State.DELIVERED, "ses-1")


@pytest.mark.parametrize("unknown", [True, False])
async def test_what_is_not_in_doubt_or_not_here_is_left_alone(unknown: bool) -> None:
    rig = Rig(ScriptedTransport("ses", answer=later))
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    assert await hear(rig, "0000000000000" if unknown else queue_id) == 0
    assert await rig.states(queue_id) == [State.QUEUED]
