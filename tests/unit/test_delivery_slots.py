"""Attempts at once: hosts that say nothing do not keep those waiting that serve, over the spool in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.delivery import lanes, slots
from sesrelay.mail.delivery import Batch, DeliveryId, State
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import Content

SILENT = Deferred(Reply(451, "4.4.1", "no answer in time"), Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE)
ONE = 10  # of which those who are not known have 8, and those in trouble 5


@dataclass
class Silence(ScriptedTransport):
    """Hosts below `silent.test` say nothing until `patience` is at an end; the others take all."""

    patience: asyncio.Event = field(default_factory=asyncio.Event)
    by_domain: bool = True
    mended: bool = False
    waiting: int = 0

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        outcome: Outcome = Delivered(OK, "remote-1")
        if batch.lane.nexthop.endswith("silent.test"):
            self.waiting += 1
            await self.patience.wait()
            self.waiting -= 1
            outcome = outcome if self.mended else SILENT
        return {delivery.id: outcome for delivery in batch.deliveries}


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Silence:
    monkeypatch.setattr(slots, "ONE", ONE)
    return Silence("t")


async def silence(rig: Rig, domains: int, messages: int = 1) -> None:
    for _ in range(messages):
        for n in range(domains):
            await rig.submit(f"b@{n}.silent.test")
    await rig.quiet()


async def end_of_patience(rig: Rig, way: Silence) -> None:
    way.patience.set()
    for _ in range(5):
        await rig.quiet()
    way.patience.clear()


async def delivered(rig: Rig, domain: str) -> bool:
    queue_id = await rig.submit(f"b@{domain}")
    await rig.quiet()
    return await rig.states(queue_id) == [State.DELIVERED]


async def test_who_has_served_waits_for_nobody_who_is_silent(way: Silence) -> None:
    rig = Rig(way)
    assert await delivered(rig, "good.test")
    await silence(rig, 20)
    assert way.waiting == 8
    assert not await delivered(rig, "other.test")
    assert await delivered(rig, "good.test")
    await end_of_patience(rig, way)
    assert await delivered(rig, "other.test")


async def test_who_is_not_known_waits_for_nobody_who_was_silent_before(way: Silence) -> None:
    rig = Rig(way)
    await silence(rig, 20)
    await end_of_patience(rig, way)
    await rig.pass_time(60.0)
    assert way.waiting == 5
    assert await delivered(rig, "new.test")
    await end_of_patience(rig, way)
    assert rig.scheduler.in_flight == 0


async def test_a_host_that_serves_again_is_no_longer_among_those_in_trouble(way: Silence) -> None:
    rig = Rig(way, retry=RetryPolicy((30.0,), max_age=10_000.0, delay_warning=None))
    await silence(rig, 1)
    await end_of_patience(rig, way)
    way.patience.set()
    way.mended = True
    await rig.pass_time(60.0)
    assert await rig.waiting() == 0
    way.mended = False
    way.patience.clear()
    await silence(rig, 1)
    for n in range(20):
        await rig.submit(f"b@{n}.more.silent.test")
    await rig.quiet()
    assert way.waiting == 9, "eight who are not known, and one who serves"
    await end_of_patience(rig, way)


async def test_a_slot_that_one_cannot_use_goes_to_the_next(way: Silence) -> None:
    """Those of a domain that turned out to be silent wait for its pause, and not for a slot any longer."""
    rig = Rig(way)
    await silence(rig, ONE, messages=3)
    queued = [await rig.submit(f"b@good{n}.test") for n in range(3)]
    await rig.quiet()
    assert [await rig.states(one) for one in queued] == [[State.QUEUED]] * 3
    await end_of_patience(rig, way)
    assert [await rig.states(one) for one in queued] == [[State.DELIVERED]] * 3


async def test_no_more_standings_are_kept_than_there_is_room_for(way: Silence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "STANDINGS", 2)
    rig = Rig(way)
    for n in range(4):
        assert await delivered(rig, f"good{n}.test")
    assert len(rig.scheduler._pump.lanes._standings) == 2
