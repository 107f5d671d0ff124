"""How old the queue is, where much of it is left to an hour that its senders have named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter, Submission
from sesrelay.spool import oldest
from sesrelay.spool.sqlite import SqliteSpool
from spool_world import NOW, opened, submission


def scheduled(serial: int, release: float, state: State = State.QUEUED) -> Submission:
    made = submission(serial, due=release, state=state)
    message = replace(made.message, envelope=replace(made.message.envelope, release=release))
    reason = "scheduled" if state is State.QUEUED else "operator"
    return replace(made, message=message, deliveries=tuple(replace(one, message=message, reason=reason) for one in made.deliveries))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oldest, "SCAN", 3)
    monkeypatch.setattr(oldest, "RELEASED_MAX", 2)


async def age(spool: SqliteSpool, clock: FakeClock) -> float | None:
    stats = await spool.stats()
    return None if stats.oldest is None else max(clock.now - stats.oldest, 0.0)


@pytest.mark.parametrize("before", range(12))
@pytest.mark.parametrize("state", [State.QUEUED, State.HELD])
async def test_what_waits_behind_stretches_of_scheduled_mail_is_found(tmp_path: Path, before: int, state: State) -> None:
    clock = FakeClock(NOW + 1_000)
    spool = await opened(tmp_path, clock)
    for serial in range(before):
        await spool.accept(scheduled(serial, NOW + 9_000 + serial, state))
    assert await age(spool, clock) == (0.0 if before else None)
    await spool.accept(submission(50))
    assert await age(spool, clock) == 950.0
    await spool.accept(scheduled(60, NOW + 70))
    assert await age(spool, clock) == 950.0
    await spool.change("delete", Filter(states=(State.QUEUED,), older_than=945.0), clock.now)
    assert await age(spool, clock) == 930.0
    await spool.close()


async def test_what_becomes_due_in_a_stretch_that_was_passed_over_is_seen_in_a_while(tmp_path: Path) -> None:
    clock = FakeClock(NOW + 1_000)
    spool = await opened(tmp_path, clock)
    for serial in range(10):
        await spool.accept(scheduled(serial, NOW + 1_100))
    assert await age(spool, clock) == 0.0
    clock.now += 500.0
    clock.ticks += oldest.LOOK_AGAIN
    assert await age(spool, clock) == 400.0
    await spool.close()


async def test_of_many_whose_hour_has_come_some_say_how_old_the_queue_is(tmp_path: Path) -> None:
    clock = FakeClock(NOW + 1_000)
    spool = await opened(tmp_path, clock)
    for serial in range(10):
        await spool.accept(scheduled(serial, NOW + 900 + serial))
    assert 90.0 < (await age(spool, clock) or 0.0) <= 100.0
    await spool.close()
