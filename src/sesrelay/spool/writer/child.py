"""The writer as a process: `python -m sesrelay.spool.writer.child STORE SOCKET LOCK`, the last two descriptors.

Started by `process`, and by nobody else. Ends when the daemon shuts its end of the socket, having finished what it was asked;
when the daemon is gone altogether, it stores nothing that it has not begun: nobody is there to be told.

Invariant: the lock is held until this process has ended, so that the next daemon finds a store that is at rest.
Invariant: no event loop, no thread; little is imported, as all of it is memory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sesrelay.seams import SpoolError
from sesrelay.spool import changing, folding, upkeep  # noqa: F401 - asked for by name: what runs must be what was started
from sesrelay.spool.bulk import made_of
from sesrelay.spool.errors import as_spool_error
from sesrelay.spool.opening import open_store
from sesrelay.spool.tally import Counts
from sesrelay.spool.writer.committing import Committer
from sesrelay.spool.writer.frames import Frames, frame
from sesrelay.spool.writer.jobs import GROUP_MAX, GROUP_OCTETS, IDLE, Job

READ = 256 * 1024  # octets


class _Asked(Job):
    """A job, and the number by which the daemon knows it."""

    __slots__ = ("serial",)

    def __init__(self, serial: int, what: Any) -> None:
        if type(what) is tuple:
            operation = made_of(what)
            super().__init__(operation.alone, operation)
        else:
            super().__init__(what)
        self.serial = serial


class _Daemon:
    """The other end of the socket."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._frames = Frames()
        self._read = bytearray(READ)  # kept: a new one for each read would be asked of the kernel, and given back
        self.octets = 0
        """How much was ever asked."""
        self.finished = False
        """Whether it has shut its end: nothing more is asked."""

    def tell(self, *what: object) -> None:
        self._socket.sendall(frame(what))

    def asks(self, seconds: float | None) -> bool:
        """Tell whether there is something to read, after waiting at most `seconds`; None is for ever."""
        return bool(self._poll.poll(None if seconds is None else seconds * 1000.0))

    @property
    def gone(self) -> bool:
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in self._poll.poll(0))

    def take(self) -> list[_Asked]:
        """Return what has come and is whole."""
        octets = self._socket.recv_into(self._read)
        self.finished = not octets
        self.octets += octets
        with memoryview(self._read)[:octets] as data:
            return [_Asked(*each) for asked in self._frames.feed(data) for each in asked]


def _gather(daemon: _Daemon, seconds: float | None) -> list[_Asked]:
    """Return what is asked within `seconds`, to be committed together."""
    group: list[_Asked] = []
    most = daemon.octets + GROUP_OCTETS
    while not daemon.finished and len(group) < GROUP_MAX and daemon.octets < most and daemon.asks(seconds):
        group += daemon.take()
        if group:
            seconds = 0.0
    return group


def serve(path: Path, descriptor: int) -> None:
    """Open the store and do what the daemon asks, until it asks no more."""
    daemon = _Daemon(descriptor)
    ended: list[int] = []

    def trouble(what: str, error: BaseException | None) -> None:
        daemon.tell("trouble", what, None if error is None else SpoolError("".join(traceback.format_exception(error)).strip()))

    try:
        committer = Committer(open_store(path), reopen=lambda: open_store(path), on_ended=ended.extend, on_trouble=trouble)
    except SpoolError as error:
        daemon.tell("refused", error)
        return
    told = committer.tally.open
    daemon.tell("ready", *told)
    gc.collect()
    gc.freeze()  # what was imported stays
    while not daemon.finished:
        group = _gather(daemon, IDLE if committer.restless else None)
        if not group:
            committer.tidy(lambda: daemon.asks(0.0))
            continue
        if daemon.gone:
            return
        committer.commit(group)
        counts = committer.tally.open
        daemon.tell("done", [_answer(job) for job in group], _changed(told, counts), ended)
        told = counts
        ended.clear()
        committer.relieve()
    committer.shut()


def _answer(job: _Asked) -> tuple[int, object, SpoolError | None]:
    return job.serial, job.result, None if job.error is None else as_spool_error(job.error)


def _changed(before: Counts, after: Counts) -> tuple[object, ...] | None:
    return None if before == after else tuple(after)  # plain: with its class, it would be found by name at the other end


def main(words: Sequence[str]) -> NoReturn:
    path, descriptor, _lock = words
    with contextlib.suppress(ConnectionError):  # the daemon is gone while it was being told
        serve(Path(path), int(descriptor))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
