"""What moves a session's deadline, and what does not, on a clock that stands still."""

from __future__ import annotations

from typing import Any

import pytest

from sesrelay.listener.deadlines import Deadlines, Watch

SILENCE, LINE, RATE, CONTENT = 300.0, 30.0, 64.0, 3600.0


class Loop:
    """As much of a loop as a Watch uses; `now` is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.armed: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Any:
        self.armed.append(when)
        self.ring = callback
        return self

    def cancel(self) -> None:
        self.armed.append(-1.0)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def watch(loop: Loop) -> Watch:
    return Watch(loop, Deadlines(SILENCE, LINE, RATE, CONTENT), lambda now: True)  # type: ignore[arg-type]


def test_octets_of_a_line_that_was_begun_earn_nothing(loop: Loop, watch: Watch) -> None:
    watch.expect_line(begun=False)
    assert watch.deadline == 1000 + SILENCE
    loop.now += 200
    for _ in range(20):  # one octet a second
        watch.expect_line(begun=True)
        loop.now += 1
    assert watch.deadline == 1200 + LINE
    watch.expect_line(begun=False)  # it has come, and with it a new silence
    assert watch.deadline == loop.now + SILENCE
    watch.expect_line(begun=True)
    assert watch.deadline == loop.now + LINE - 20, "all lines share what one may take"
    watch.expect_line(begun=False)
    watch.forgive()  # it has brought a message
    watch.expect_line(begun=True)
    assert watch.deadline == loop.now + LINE


def test_who_drips_whole_commands_is_gone_after_two_graces(loop: Loop, watch: Watch) -> None:
    watch.start(SILENCE)
    for octet in range(int(2 * LINE)):  # NOOP CR LF, an octet a second
        watch.expect_line(begun=octet % 6 != 5)
        loop.now += 1
        if loop.now >= watch.deadline:
            break
    assert loop.now <= 1000 + 2 * LINE


def test_content_lives_by_its_rate_alone(loop: Loop, watch: Watch) -> None:
    ends = loop.now + CONTENT
    watch.expect_content(ends)
    for _ in range(100):  # twice the minimum rate
        loop.now += 1
        assert loop.now < watch.deadline
        watch.earn(int(2 * RATE), ends)
    assert watch.deadline == 1000 + LINE + 200
    while loop.now < watch.deadline:  # a fourth of it
        loop.now += 1
        watch.earn(int(RATE / 4), ends)
    assert loop.now < 1500


def test_who_came_fast_may_not_be_silent_for_long(loop: Loop, watch: Watch) -> None:
    watch.expect_content(loop.now + CONTENT)
    watch.earn(10**9, loop.now + CONTENT)
    assert watch.deadline == loop.now + SILENCE
    watch.earn(10**9, loop.now + 5)
    assert watch.deadline == loop.now + 5


def test_time_that_we_take_is_not_the_clients(loop: Loop, watch: Watch) -> None:
    watch.expect_line(begun=True)
    watch.allow_more(60)
    assert watch.deadline == loop.now + 60 + LINE
    watch.allow_more(1)
    assert watch.deadline == loop.now + 60 + LINE


def test_a_look_is_never_farther_than_the_grace_or_the_deadline(loop: Loop, watch: Watch) -> None:
    watch.start(SILENCE)
    assert loop.armed == [1000 + LINE]
    loop.now = 1290
    loop.ring()
    assert loop.armed[-1] == 1000 + SILENCE
    watch.stop()
    rung = len(loop.armed)
    loop.ring()
    assert len(loop.armed) == rung
