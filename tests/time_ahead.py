"""A loop in which time passes by itself as soon as nobody has anything to do: timers ring at once, and by the clock of the test."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from fakes import FakeClock


class _Leaping(selectors.DefaultSelector):
    """Waits for nothing: what it was to wait has passed."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0.0)
        if not ready:
            assert timeout is not None, "nothing is left that could ever happen"
            self._clock.advance(max(timeout, 0.0))
        return ready


def run_ahead(scenario: Callable[[FakeClock], Coroutine[Any, Any, None]]) -> None:
    """Run `scenario` in such a loop, and give it the loop's clock. Whatever waits for a thread or a socket has no place in it."""
    clock = FakeClock()
    loop = asyncio.SelectorEventLoop(_Leaping(clock))
    loop.time = clock.monotonic  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario(clock))
