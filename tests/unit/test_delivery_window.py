"""The window of a lane in the engine: it opens as the next hop takes mail, and closes when it stops serving."""

from __future__ import annotations

import asyncio

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.mail.outcome import Deferred, Delivered, PauseReason, Scope
from sesrelay.mail.reply import Reply

DOWN = Deferred(Reply(421, "4.3.2", "Overloaded"), Scope.NEXTHOP, PauseReason.UNAVAILABLE)


async def test_it_opens_with_success_and_closes_with_trouble() -> None:
    way = ScriptedTransport("t", concurrency=10, gate=asyncio.Event())
    rig = Rig(way)

    async def let_go() -> None:
        """Let those under way end; those that follow wait at the next gate."""
        gate, way.gate = way.gate, asyncio.Event()
        assert gate is not None
        gate.set()
        await rig.quiet()

    for n in range(40):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()
    assert way.under_way == 5
    await let_go()
    assert way.under_way == 10  # one more for each that was taken, to the limit
    way.answer = lambda recipient: DOWN
    await let_go()
    assert way.under_way == 0  # paused
    way.answer = lambda recipient: Delivered(OK)
    await rig.pass_time(400.0)
    assert way.under_way == 1  # the probe
    await let_go()
    assert way.under_way == 2  # and not ten at once
    await let_go()
    assert way.under_way == 4
    last, way.gate = way.gate, None
    assert last is not None
    last.set()
    for _ in range(5):
        await rig.quiet()
    assert await rig.waiting() == 0
