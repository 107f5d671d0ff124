"""Pacing by the answers: when a next call may leave so that it certainly finds a token."""

from __future__ import annotations

import pytest

from fakes import FakeClock
from sesrelay.policy.pace import Governor
from sesrelay.policy.turnaround import EPOCH, FEW, Turnaround
from sesrelay.transport.ses.ledger import Ledger


def call(turnaround: Turnaround, at: float, seconds: float, recipients: int = 1) -> float:
    """Make a call of `seconds` and return the wait after its answer."""
    turnaround.left(recipients, at)
    turnaround.taken(at + seconds, 1.0)
    return turnaround.wait(at + seconds, 1.0)


def test_as_long_as_little_is_known_a_whole_interval_follows_each_answer() -> None:
    turnaround = Turnaround()
    assert turnaround.wait(0.0, 1.0) == 0.0
    waits = [call(turnaround, at * 10.0, 0.1 + 0.01 * (at % 2)) for at in range(FEW)]
    assert waits[:-1] == pytest.approx([1.0] * (FEW - 1))
    assert waits[-1] == pytest.approx(1.0 - (0.1 - 2 * 0.01 / FEW))


def test_each_recipient_has_its_time() -> None:
    assert call(Turnaround(), 0.0, 0.1, recipients=30) == pytest.approx(30.0)


def test_an_answer_is_waited_for_but_not_for_ever() -> None:
    turnaround = Turnaround()
    turnaround.left(1, 0.0)
    assert turnaround.wait(0.25, 1.0) == pytest.approx(0.75)
    assert 0.0 < turnaround.wait(1.5, 1.0) <= 0.1
    assert turnaround.wait(2.0, 1.0) == 0.0
    turnaround.left(1, 2.0)
    turnaround.taken(2.5, 1.0)  # of which of the two calls is not known: it tells nothing about how long a call takes
    assert turnaround.wait(2.5, 1.0) == pytest.approx(1.0)
    assert turnaround._now.calls == 0


def test_what_was_refused_or_never_made_is_not_waited_for() -> None:
    turnaround = Turnaround()
    for end in (turnaround.refused, turnaround.withdrawn):
        turnaround.left(1, 0.0)
        end()
        assert turnaround.wait(0.0, 1.0) == 0.0
    turnaround.taken(0.5, 1.0)  # somebody else's call
    assert turnaround.wait(0.5, 1.0) == 0.0


def test_a_call_that_came_too_early_is_learnt_from_and_lowers_no_pace() -> None:
    governor = Governor(1.0, 0.0)
    at = 0.0
    for _ in range(FEW):
        assert governor.take(1, at) == 0.0
        governor.taken(at + 0.1)
        at += 10.0
    assert governor.take(1, at) == 0.0
    governor.taken(at + 0.1)
    assert (
        governor.take(1, at + 1.0) == 0.0
    )  # by then the next is certain to find a token, if it is under way as long as the others
    governor.throttled(at + 1.05)  # but it was not
    assert governor.current == 1.0
    assert governor.take(1, at + 1.05) == pytest.approx(0.05)
    assert governor.take(1, at + 1.1) == 0.0
    governor.throttled(at + 1.2)  # now it was certain: somebody else sends too
    assert governor.current == pytest.approx(0.7)


def test_a_way_that_has_become_longer_is_noticed() -> None:
    turnaround = Turnaround()
    at = 0.0
    for seconds in [0.05] * EPOCH + [0.25] * (2 * EPOCH + 1):
        wait = call(turnaround, at, seconds)
        at += 10.0
    assert wait == pytest.approx(0.75, abs=0.001)


def test_the_ledger_tells_its_paces_of_each_call_that_was_taken() -> None:
    clock = FakeClock()
    ledger = Ledger(clock)
    governor = ledger.governor("auto", 1.0)
    assert governor.take(1, clock.monotonic()) == 0.0
    clock.advance(1.5)
    assert governor.take(1, clock.monotonic()) > 0.0  # by the time alone it might go
    ledger.spent(1)
    assert governor.take(1, clock.monotonic()) == pytest.approx(1.0)
    clock.advance(1.0)
    assert governor.take(1, clock.monotonic()) == 0.0
