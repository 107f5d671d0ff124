"""A coroutine that goes on in the very callback which brings what it waits for, without a task in between.

A task is woken through the loop's queue: one more turn of the loop, with its system calls, for each thing a client says.
Whatever else the coroutine awaits, a future of asyncio's, wakes it as it would wake a task. `asyncio.timeout` wants a
task and does not work here; deadlines are the Watch's.

Runs on: the loop, asyncio's own or uvloop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Input:
    """Await it to wait for `Steps.input_came`."""

    __slots__ = ()

    def __await__(self) -> Generator[Input, None, None]:
        yield self


INPUT = Input()


class Steps:
    """`ended` is called once, with the error that ended the work, if one did; CancelledError is one."""

    __slots__ = ("_cancelled", "_ended", "_loop", "_waits", "_work", "done")

    def __init__(
        self, work: Coroutine[Any, None, None], loop: asyncio.AbstractEventLoop, ended: Callable[[BaseException | None], None]
    ) -> None:
        self._work = work
        self._loop = loop
        self._ended = ended
        self._waits: object = None
        self._cancelled = False
        self.done = False

    def start(self) -> None:
        self._step(None)

    def input_came(self) -> None:
        """Go on, if that is what is waited for."""
        if self._waits is INPUT:
            self._step(None)

    def cancel(self) -> None:
        """Raise CancelledError where the work waits; it must be waiting, or have ended."""
        if self.done or self._cancelled:
            return
        self._cancelled = True
        waits = self._waits
        if isinstance(waits, asyncio.Future):
            waits.cancel()
        elif waits is INPUT:
            self._step(asyncio.CancelledError())

    def _step(self, error: BaseException | None) -> None:
        self._waits = None
        try:
            waits = self._work.send(None) if error is None else self._work.throw(error)
        except StopIteration:
            self._end(None)
        except (Exception, asyncio.CancelledError) as failure:
            self._end(failure)
        else:
            self._waits = waits
            if waits is None:  # asyncio.sleep(0)
                self._loop.call_soon(self._woken, None)
            elif waits is not INPUT:
                waits._asyncio_future_blocking = False
                waits.add_done_callback(self._woken)
        finally:
            del error  # its traceback holds this frame, and would hold what the work held until a collection

    def _woken(self, future: asyncio.Future[Any] | None) -> None:
        if not self._cancelled:
            self._step(None)  # the result, or the error, is taken by the future's own __await__
            return
        # The future may have been done before it could be cancelled: what is cancelled ends here all the same.
        if future is not None and not future.cancelled():
            future.exception()  # looked at, or asyncio complains that nobody did
        self._step(asyncio.CancelledError())

    def _end(self, error: BaseException | None) -> None:
        self.done = True
        self._ended(error)
