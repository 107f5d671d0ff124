"""Servers of a test in a thread of their own, beside tests that wait for processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any


@contextmanager
def serving(*servers: AbstractAsyncContextManager[Any]) -> Iterator[None]:
    """Enter the servers, and let them serve until the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers")
    thread.start()

    def do(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    entered = []
    try:
        for server in servers:
            do(server.__aenter__())
            entered.append(server)
        yield
    finally:
        for server in reversed(entered):
            do(server.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
