"""Work in a thread that nobody waits for: the loop goes on meanwhile, and the process may end before it.

Threads of a pool are waited for at the end, by the loop and by Python; who is asked, and does not answer, would hold it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar, cast

T = TypeVar("T")


async def aside(work: Callable[[], T], ended: Callable[[], None] = lambda: None) -> T:
    """Return what `work` returns; `ended` is called on the loop when it has, though its caller has gone. Raises: as `work`"""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(found: T | None, error: Exception | None) -> None:
        ended()
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", found))

    def run() -> None:
        found: T | None = None
        error: Exception | None = None
        try:
            found = work()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found, error)

    try:
        Thread(target=run, name="aws", daemon=True).start()
    except RuntimeError:
        ended()
        raise
    return await done
