"""One timer for all waits of a connection."""

from __future__ import annotations

import asyncio

import pytest

from sesrelay.transport.net.waiting import Waiting


class Line(Waiting):
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        super().__init__("too late")

    async def wait(self, seconds: float | None, woken_after: float | None = None) -> str | None:
        """Wait, woken after so long, and return why it is over."""
        if woken_after is not None:
            self._loop.call_later(woken_after, self._wake)
        await self._wait(None if seconds is None else self._loop.time() + seconds)
        return self.lost

    def put_off(self, seconds: float) -> None:
        assert self._deadline is not None
        self._deadline += seconds

    def end(self) -> None:
        self._lose("ended")

    @property
    def rings(self) -> float | None:
        return self._timer.when() if self._timer is not None else None


async def test_a_wait_that_is_over_leaves_the_timer_to_the_next() -> None:
    line = Line()
    await line.wait(0.2, woken_after=0.0)
    first = line.rings
    await line.wait(60.0, woken_after=0.0)
    assert first is not None
    assert line.rings == first
    await line.wait(60.0, woken_after=0.3)
    assert line.lost is None
    assert (line.rings or 0.0) > first + 30.0


async def test_a_wait_that_ends_before_the_timer_of_the_former_one_has_its_own() -> None:
    line = Line()
    await line.wait(3_600.0, woken_after=0.0)
    assert await line.wait(0.05) == "too late"


async def test_what_comes_puts_it_off() -> None:
    line = Line()
    asyncio.get_running_loop().call_later(0.02, line.put_off, 60.0)
    assert await line.wait(0.1, woken_after=0.3) is None


async def test_nobody_is_late_for_a_wait_that_has_no_end(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()
    await line.wait(0.05, woken_after=0.0)
    assert await line.wait(None, woken_after=0.2) is None
    assert not caplog.records


async def test_the_end_wakes_and_its_first_reason_counts() -> None:
    line = Line()
    asyncio.get_running_loop().call_later(0.02, line.end)
    assert await line.wait(60.0) == "ended"
    assert line.rings is None
    line._lose("again")
    assert line.lost == "ended"


async def test_who_is_cancelled_waits_no_more() -> None:
    line = Line()
    task = asyncio.ensure_future(line.wait(0.1))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.2)
    assert line.lost is None
