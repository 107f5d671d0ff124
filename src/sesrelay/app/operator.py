"""Opening the operators' desk: the running daemon's, or beside a stopped one the store itself.

Invariant: there is one writer always: a verb that finds no daemon takes the daemon's lock.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from sesrelay.app.clock import SystemClock
from sesrelay.app.places import queue_of, store_path, undeliverable_path
from sesrelay.config.loading import Loaded
from sesrelay.config.model import Config
from sesrelay.control.client import RemoteDesk
from sesrelay.control.desk import SpoolDesk
from sesrelay.control.question import ControlError, NoAnswer, OtherQueue
from sesrelay.seams import Desk, Document, SpoolError, Submission
from sesrelay.spool.errors import LockHeld, StoreRefused
from sesrelay.spool.lock import StateLock
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.salvage import Found, bare_content, salvage
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.transport.folder import count

Trouble = Callable[[str, BaseException | None], None]


class DaemonUnreachable(Exception):
    """A daemon holds the queue but does not answer, or it or its queue are not for this user. The text has the remedy."""


class NoStore(MemorySpool):
    """What stands for a store that no daemon has made yet: empty, and no place for a wish that is to last."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__()
        self._state_dir = state_dir

    async def keep(self, statement: str, bindings: tuple[object, ...]) -> None:
        raise SpoolError(f"there is no queue in {self._state_dir} yet; start the daemon first: sesrelay run")


def undeliverable(config: Config) -> Document:
    """Return what the summary says of the folder for reports that could not be sent."""
    folder = undeliverable_path(config)
    try:
        return {"folder": str(folder), "messages": count(folder)}
    except OSError:
        return {"folder": str(folder), "messages": None}  # it is not for us to read


async def reach_daemon(config: Config) -> RemoteDesk | None:
    """Return the desk of the running daemon, or None where none listens, or only another queue's.

    Raises: DaemonUnreachable where the socket is there and not for us; NoAnswer
    """
    try:
        return await _reach(config)
    except OtherQueue:
        return None


async def _reach(config: Config) -> RemoteDesk | None:
    """As `reach_daemon`. Raises: OtherQueue too"""
    try:
        return await RemoteDesk.connect(config.control, queue_of(config))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OtherQueue, NoAnswer):
        raise
    except ControlError as error:
        raise DaemonUnreachable(f"{config.control}: {error}") from error
    except PermissionError:
        raise DaemonUnreachable(f"{config.control}: permission denied; run this as root or as a member of its group") from None


async def reload_daemon(config: Config) -> list[str] | None:
    """Have the running daemon reload; return why it would not (empty: it did), or None where none runs.

    Raises: DaemonUnreachable, ControlError
    """
    try:
        desk = await _reach(config)
    except OtherQueue as other:  # it runs with another state_dir than the file has by now, or is a stranger's
        apart = "if that is another relay, set another socket under control"
        return [f"{other}; state_dir cannot change while the daemon runs: restart it ({apart})"]
    if desk is None:
        return None
    async with desk:
        return list((await desk.call("reload"))["problems"])


@asynccontextmanager
async def open_desk(config: Config, on_trouble: Trouble, *, importing: Loaded | None = None) -> AsyncIterator[Desk]:
    """Open whichever desk there is; `on_trouble` is told what the store complains of.

    `importing`: the configuration by which a desk without a daemon is to place messages.
    Raises: DaemonUnreachable, SpoolError, ControlError; with `importing` also OSError, ValueError
    """
    remote = await reach_daemon(config)
    if remote is not None:
        async with remote:
            yield remote
        return
    clock = SystemClock()
    missing = _missing(config)
    if missing is not None:
        if importing is not None:
            raise DaemonUnreachable(f"there is no queue in {config.state_dir} yet: start the daemon once; it creates the queue")
        # Nothing was ever queued; a verb is not what makes a store.
        yield SpoolDesk(NoStore(config.state_dir), clock, undeliverable=lambda: undeliverable(config), missing=missing)
        return
    try:
        lock = StateLock.acquire(config.state_dir)
    except LockHeld as held:
        raise DaemonUnreachable(f"{held}, but nothing answers at {config.control}; is it just starting or stopping?") from held
    except StoreRefused as refused:
        if isinstance(refused.__cause__, PermissionError):
            raise _not_for_this_user(config) from refused
        raise
    with lock:
        spool = await SqliteSpool.open(config.state_dir, clock=clock, on_trouble=on_trouble, lock=lock)
        try:
            desk = SpoolDesk(spool, clock, undeliverable=lambda: undeliverable(config))
            yield replace(desk, importer=_importer(spool, importing, clock)) if importing else desk
        finally:
            await spool.close()


def _missing(config: Config) -> str | None:
    """Return why there is no queue yet, None where there is one. Raises: DaemonUnreachable where that cannot be seen"""
    try:
        store_path(config).stat()
    except (FileNotFoundError, NotADirectoryError):
        if not config.state_dir.is_dir():
            what = "is not a directory" if config.state_dir.exists() else "does not exist"
            return f"there is no queue yet: state_dir {config.state_dir} {what}"
        return f"there is no queue yet in {config.state_dir}: the daemon makes it when it first starts"
    except PermissionError:
        raise _not_for_this_user(config) from None
    return None


def _not_for_this_user(config: Config) -> DaemonUnreachable:
    return DaemonUnreachable(
        f"{config.state_dir}: permission denied; run this as root (sudo); members of its group can ask while the daemon runs"
    )


@asynccontextmanager
async def salvaged_desk(config: Config, folder: Path, on_trouble: Trouble) -> AsyncIterator[Desk]:
    """Open a desk over a new store, under `folder`, of all that can be read of the one in `state_dir`.

    `on_trouble` is told what is incomplete. Raises: DaemonUnreachable while a daemon runs, SpoolError, OSError
    """
    try:
        lock = StateLock.acquire(config.state_dir)
    except LockHeld as held:
        raise DaemonUnreachable(f"{held}; stop the daemon first, because only it can read a store in use") from held
    clock, store = SystemClock(), store_path(config)
    with lock, _place_under(folder) as copy:
        found = await asyncio.to_thread(salvage, store, config.state_dir / "bodies", copy)
        on_trouble(f"{found.messages} waiting messages were found in the readable part of {store}", None)
        if found.held:
            on_trouble(
                f"{found.held} deliveries had lost their state and are held there, reason salvaged: check each of them", None
            )
        if found.bare:
            lost = await asyncio.to_thread(_write_bare, found, copy / store.name, folder)
            on_trouble(f"{len(found.bare)} messages have lost their envelope: their content is in {lost}", None)
        spool = await SqliteSpool.open(copy, clock=clock, on_trouble=on_trouble)
        try:
            yield SpoolDesk(spool, clock)
        finally:
            await spool.close()


@contextmanager
def _place_under(folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".salvage-", dir=folder) as place:
        yield Path(place)


def _write_bare(found: Found, store: Path, folder: Path) -> Path:
    lost = folder / "without-envelope"
    lost.mkdir(mode=0o700, exist_ok=True)
    for name in found.bare:
        (lost / f"{name}.eml").write_bytes(bare_content(store, name))
    return lost


def _importer(spool: SqliteSpool, loaded: Loaded, clock: SystemClock) -> Callable[[Submission], Awaitable[bool]]:
    """Return what places messages as a daemon with this configuration would. Raises: OSError, ValueError"""
    from sesrelay.app.ways_out import Shared
    from sesrelay.app.wiring import snapshot
    from sesrelay.delivery.importing import Importer
    from sesrelay.delivery.pauses import Pauses
    from sesrelay.observe.fanout import Fanout

    view = snapshot(loaded, Shared(clock, Fanout([])))
    return Importer(spool, spool, lambda: view, Pauses(), clock).take
