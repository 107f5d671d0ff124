"""A limit for what must not take a time that grows with the square of its input."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Fail the test where it takes so much of the processor itself: a machine that is busy with others costs it nothing."""

    def spent(*_: object) -> None:
        pytest.fail(f"took {seconds} s of the processor")

    before = signal.signal(signal.SIGVTALRM, spent)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
