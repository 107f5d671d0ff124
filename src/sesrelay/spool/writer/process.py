"""The daemon's end of the writer in a process of its own.

An idle writer is sent at once what is asked for; a busy one at the end of the loop's turn, all of that turn in one frame. What
came over during the last sync is the next group, as on a thread; what is patient goes over with the next that hurries, or a
moment later.

Invariant: the two live and die together. Where the daemon dies, its writer stores nothing that it has not begun, and
keeps the lock until it is gone; where the writer dies, nobody can say what of its last group is stored, so the daemon ends as
it would by a crash: what is in flight is in doubt at the next start, and nothing else is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import sesrelay
from sesrelay.seams import SpoolError
from sesrelay.spool.bulk import Operation, plain
from sesrelay.spool.errors import StoreRefused, as_spool_error
from sesrelay.spool.lock import StateLock
from sesrelay.spool.tally import Counts
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer.frames import Frames, frame
from sesrelay.spool.writer.jobs import LINGER

T = TypeVar("T")

COMMAND = (sys.executable, "-P", "-m", "sesrelay.spool.writer.child")
DIED = os.EX_TEMPFAIL  # how the daemon ends when its writer has: started again, it goes on
SEND_BUFFER = 1024 * 1024  # octets
GRACE = 30.0  # seconds for the writer to write the log home and end


class ProcessWriter(asyncio.Protocol):
    """Implements `promise.Writer`, for one event loop. Made by `start`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        on_ended: Callable[[list[int]], None],
        on_trouble: Callable[[str, BaseException | None], None],
    ) -> None:
        self._process = process
        self._on_ended = on_ended
        self._on_trouble = on_trouble
        self._die: Callable[[int], object] = os._exit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._counts: Counts | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._asked: list[tuple[int, object]] = []
        self._soon = False
        """Whether what is asked goes over at the end of this turn."""
        self._later: asyncio.TimerHandle | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._serial = 0

    @classmethod
    async def start(
        cls,
        path: Path,
        lock: StateLock,
        *,
        on_ended: Callable[[list[int]], None],
        on_trouble: Callable[[str, BaseException | None], None],
    ) -> ProcessWriter:
        """Return once the store at `path` is open; new where nothing is. The writer holds `lock` too. Raises: StoreRefused"""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            try:
                process = _spawn(path, theirs.fileno(), lock.fileno())
            except OSError as error:
                raise StoreRefused(f"the writer of {path} cannot be started: {error}") from error
            writer = cls(process, on_ended=on_ended, on_trouble=on_trouble)
            end = ours.dup()
        try:
            await writer._loop.create_connection(lambda: writer, sock=end)
            await writer._ready
        except BaseException:
            if writer._transport is None:
                end.close()
                writer._gone.set_result(None)
            await writer.close()
            raise
        return writer

    # --- promise.Writer --------------------------------------------------------------------------------------

    def submit(self, run: Callable[[Transaction], T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        return self._ask(run, patient)

    def perform(self, operation: Operation[T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        return self._ask(plain(operation), patient)

    def counts(self) -> Counts:
        assert self._counts is not None
        return self._counts

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send()
            if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
                self._transport.write_eof()
        try:
            await asyncio.wait_for(asyncio.shield(self._gone), GRACE)
        except TimeoutError as error:
            self._on_trouble(
                "the writer process of the queue does not end, and is killed; everything that it confirmed is stored", error
            )
            self._process.kill()
            await self._gone
        await asyncio.to_thread(self._process.wait)

    def _ask(self, what: object, patient: bool) -> asyncio.Future[Any]:
        if self._closing:
            raise SpoolError("the store is closed")
        self._serial += 1
        idle = len(self._waiting) == len(self._asked)
        future = self._waiting[self._serial] = self._loop.create_future()
        self._asked.append((self._serial, what))
        if patient:
            if self._later is None and not self._soon:
                self._later = self._loop.call_later(LINGER, self._send)
        elif idle:
            self._send()
        elif not self._soon:
            self._soon = True
            self._loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        self._soon = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._asked and self._transport is not None:
            asked, self._asked = self._asked, []
            try:
                self._transport.write(frame(asked))
            except Exception as error:  # a fault of ours must not leave anyone waiting
                self._on_trouble("a request could not be sent to the writer process of the queue", error)
                for serial, *_ in asked:
                    self._answer(serial, None, as_spool_error(error))

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for kind, *told in self._frames.feed(data):
            if kind == "done":
                self._done(*told)
            elif kind == "trouble":
                self._on_trouble(*told)
            elif kind == "ready":
                self._counts = Counts(*told)
                self._know(None)
            else:
                self._closing = True
                self._know(told[0])

    def _know(self, refusal: StoreRefused | None) -> None:
        """Let `start` go on, if it still waits."""
        if not self._ready.done():
            if refusal is None:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(refusal)

    def _done(self, results: list[tuple[int, Any, SpoolError | None]], counts: tuple[Any, ...] | None, ended: list[int]) -> None:
        if counts is not None:
            self._counts = Counts(*counts)
        for serial, result, error in results:
            self._answer(serial, result, error)
        if ended:
            self._on_ended(ended)

    def _answer(self, serial: int, result: Any, error: SpoolError | None) -> None:
        future = self._waiting.pop(serial)
        if future.done():
            return  # cancelled: the caller has gone
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._gone.set_result(None)
        if not self._ready.done():
            self._closing = True
            self._know(StoreRefused("the writer process of the queue ended before it was ready; its own message says why"))
        elif self._closing:
            if self._waiting:
                self._on_trouble("the writer process of the queue ended before it finished its work", error)
            for serial in list(self._waiting):
                self._answer(serial, None, SpoolError("the writer process of the queue ended before it finished its work"))
        else:
            self._on_trouble(
                "the writer process of the queue has died, and its unfinished work is in doubt; sesrelay exits, to be started "
                "again",
                error,
            )
            self._die(DIED)


def _spawn(path: Path, *descriptors: int) -> subprocess.Popen[bytes]:
    """Start the writer, which blocks the signals that end or interrupt it.

    A terminal or a service sends them to all its processes; the daemon alone is to answer them.
    """
    blocked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        words = [*COMMAND, str(path), *map(str, descriptors)]
        paths = (str(Path(sesrelay.__file__).parents[1]), *filter(None, (os.environ.get("PYTHONPATH"),)))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=descriptors, env=env)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
