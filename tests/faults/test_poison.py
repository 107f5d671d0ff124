"""One message that cannot be sent, whatever is tried, is laid before the operator; the others flow."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from engine_rig import OK, Rig, ScriptedTransport
from sesrelay.delivery.room import STREAMED
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.mail.delivery import State
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.outcome import Delivered, Outcome
from sesrelay.seams import ContentGone, Filter
from sesrelay.spool.files import THRESHOLD
from spool_world import MX, NOW, opened, submission

POISON = "poison@example.org"


def answer(recipient: str) -> Outcome:
    if recipient == POISON:
        raise ZeroDivisionError("a bug that this message alone meets")
    return Delivered(OK, "remote")


async def test_a_message_that_trips_over_a_bug_is_held_and_the_others_flow() -> None:
    rig = Rig(ScriptedTransport("out", answer=answer))
    poison = await rig.submit(POISON)
    for _ in range(4):
        others = [await rig.submit(f"b{n}@example.org") for n in range(3)]
        await rig.quiet()
        assert [await rig.states(name) for name in others] == [[State.DELIVERED]] * 3
        await rig.pass_time(200.0)
    (one,) = (await rig.record(poison)).deliveries
    assert (one.delivery.state, one.delivery.reason, one.delivery.attempts) == (State.HELD, "in_doubt", 3)
    assert not any(record.message.report for record in await rig.everything()), "never bounced for a fault of ours"


@pytest.mark.parametrize(("size", "cut"), [(50_000, False), (THRESHOLD + 1, False), (THRESHOLD + 1, True), (2 * STREAMED, True)])
async def test_lost_content_holds_that_message_and_no_other(tmp_path: Path, size: int, cut: bool) -> None:
    spool = await opened(tmp_path)
    body = (b"x" * 62 + b"\r\n") * (size // 64 + 1)
    made = [submission(serial, lane=MX, content=Canonical(b"Subject: x\r\n\r\n" + body)) for serial in range(3)]
    for each in made:
        await spool.accept(each)
    await spool.close()
    lost = made[1].message.id
    if cut:
        os.truncate(tmp_path / "bodies" / lost, size - 4096)
    elif size > THRESHOLD:
        (tmp_path / "bodies" / lost).unlink()
    else:
        db = apsw.Connection(str(tmp_path / "queue.db"))
        db.execute("DELETE FROM content WHERE message = ?", (int(lost, 32),))
        db.close()
    out = ScriptedTransport("direct", answer=lambda recipient: Delivered(OK, "remote"), by_domain=True)
    rig = Rig(out)
    rig.clock.now = NOW + 5 * 3600.0  # old enough for a warning, which wants the content too
    spool = await opened(tmp_path, rig.clock)
    if not cut:  # what is left of it an operator may still want to read
        with pytest.raises(ContentGone):
            await spool.content(lost)
    scheduler = Scheduler(spool, rig.snapshot(out), rig.clock, rig.witness)  # type: ignore[arg-type]
    await scheduler.start()
    while len(out.seen) < 2 or scheduler.in_flight:
        await spool.ping()
    found = {each.delivery.id.message: each.delivery for each in await spool.list(Filter(states=tuple(State)), NOW, None, 9)}
    assert {name: each.state for name, each in found.items()} == {
        made[0].message.id: State.DELIVERED, lost: State.HELD, made[2].message.id: State.DELIVERED,
    }  # fmt: skip
    assert found[lost].reason == "content_lost"
    await scheduler.drain(1.0)
    await spool.close()
