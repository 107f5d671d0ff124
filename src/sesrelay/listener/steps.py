"""A coroutine that goes on in the very callback which brings what it waits for, without a task in between.

A task is woken through the loop's queue: one more turn of the loop, with its system calls, for each thing a client says.
Whatever else the coroutine awaits, a future of asyncio's, wakes it as it would wake a task, only that its owner says when it
goes on. `asyncio.timeout` wants a task and does not work here; deadlines are the Watch's.

Runs on: the loop, asyncio's own or uvloop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Input:
    """Await it to wait for `Steps.go_on`."""

    __slots__ = ()

    def __await__(self) -> Generator[Input, None, None]:
        yield self


INPUT = Input()


class Steps:
    """`ended` is called once, with the error that ended the work, if one did; CancelledError is one.

    `ready` is called each time that a future which is waited for is done: its owner then calls `go_on`, at once or soon.
    """

    __slots__ = ("_cancelled", "_ended", "_loop", "_ready", "_waits", "_woken", "_work", "done")

    def __init__(
        self,
        work: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[BaseException | None], None],
        ready: Callable[[], None],
    ) -> None:
        self._work = work
        self._loop = loop
        self._ended = ended
        self._ready = ready
        self._woken = False  # the future that is waited for is done
        self._waits: object = None
        self._cancelled = False
        self.done = False

    def start(self) -> None:
        self._step(None)

    def go_on(self) -> None:
        """Go on, if there may be input and that is waited for, or if what is waited for is there."""
        waits = self._waits
        if waits is INPUT:
            self._step(None)
        elif self._woken:
            self._woken = False
            if not self._cancelled:
                self._step(None)  # the result, or the error, is taken by the future's own __await__
                return
            # The future may have been done before it could be cancelled: what is cancelled ends here all the same.
            if isinstance(waits, asyncio.Future) and not waits.cancelled():
                waits.exception()  # looked at, or asyncio complains that nobody did
            self._step(asyncio.CancelledError())

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
                self._loop.call_soon(self._wake, None)
            elif waits is not INPUT:
                waits._asyncio_future_blocking = False
                waits.add_done_callback(self._wake)
        finally:
            del error  # its traceback holds this frame, and would hold what the work held until a collection

    def _wake(self, future: asyncio.Future[Any] | None) -> None:
        self._woken = True
        self._ready()

    def _end(self, error: BaseException | None) -> None:
        self.done = True
        self._ended(error)
