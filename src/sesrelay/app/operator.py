"""Opening the operators' desk: the running daemon's, or beside a stopped one the store itself.

Invariant: there is one writer always: a verb that finds no daemon takes the daemon's lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sesrelay.app.clock import SystemClock
from sesrelay.app.places import store_path
from sesrelay.config.model import Config
from sesrelay.control.client import RemoteDesk
from sesrelay.control.desk import SpoolDesk
from sesrelay.seams import Desk
from sesrelay.spool.errors import LockHeld
from sesrelay.spool.lock import StateLock
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.sqlite import SqliteSpool

Trouble = Callable[[str, BaseException | None], None]


class DaemonUnreachable(Exception):
    """A daemon holds the queue but its control socket does not answer, or may not be used. The text has the remedy."""


async def reach_daemon(config: Config) -> RemoteDesk | None:
    """Return the desk of the running daemon, or None where none listens.

    Raises: DaemonUnreachable where the socket is there and not for us.
    """
    try:
        return await RemoteDesk.connect(config.control)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise DaemonUnreachable(f"{config.control}: permission denied; run this as root or as a member of its group") from None


async def reload_daemon(config: Config) -> list[str] | None:
    """Have the running daemon reload; return why it would not (empty: it did), or None where none runs.

    Raises: DaemonUnreachable, ControlError
    """
    desk = await reach_daemon(config)
    if desk is None:
        return None
    async with desk:
        return list((await desk.call("reload"))["problems"])


@asynccontextmanager
async def open_desk(config: Config, on_trouble: Trouble) -> AsyncIterator[Desk]:
    """Open whichever desk there is; `on_trouble` is told what the store complains of. Raises: DaemonUnreachable, SpoolError, ControlError"""
    remote = await reach_daemon(config)
    if remote is not None:
        async with remote:
            yield remote
        return
    clock = SystemClock()
    if not store_path(config).exists():
        yield SpoolDesk(MemorySpool(clock), clock)  # nothing was ever queued; a verb is not what makes a store
        return
    try:
        lock = StateLock.acquire(config.state_dir)
    except LockHeld as held:
        raise DaemonUnreachable(f"{held}, but nothing answers at {config.control}; is it just starting or stopping?") from held
    with lock:
        spool = await SqliteSpool.open(config.state_dir, clock=clock, on_trouble=on_trouble, lock=lock)
        try:
            yield SpoolDesk(spool, clock)
        finally:
            await spool.close()
