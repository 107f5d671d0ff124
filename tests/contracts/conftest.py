"""What tests of contracts share: a loop of either kind to run on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from loops import LOOPS, Run


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run something on each event loop, within its time."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:

        async def bounded(awaited: Awaitable[Any]) -> Any:
            async with asyncio.timeout(50):
                return await awaited

        yield lambda awaited: runner.run(bounded(awaited))
