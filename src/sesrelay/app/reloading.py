"""What a reload cannot put in force, and what it prepares before it puts anything in force.

Invariant: what wants a restart is named before anything is prepared.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sesrelay.app import wiring
from sesrelay.app.ways_out import Shared
from sesrelay.config.addresses import meet
from sesrelay.config.loading import Loaded
from sesrelay.config.model import Config
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.listener import sockets
from sesrelay.listener.options import ListenerOptions


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration with all that wants making before it can be in force. `doors`: the sockets that were not open before."""

    loaded: Loaded
    snapshot: Snapshot
    options: ListenerOptions
    doors: Mapping[str, socket.socket]


@asynccontextmanager
async def prepared(loaded: Loaded, serving: Container[str], shared: Shared) -> AsyncIterator[Prepared]:
    """Make it; all of it is closed again where the body raises. `serving`: the listeners whose sockets are open.

    Raises: ListenError, OSError, ValueError
    """
    async with AsyncExitStack() as made:
        wanted = [listener.listen for listener in loaded.config.listeners if listener.listen not in serving]
        doors = {listen: made.enter_context(sockets.bind(listen)) for listen in wanted}
        snapshot = wiring.snapshot(loaded, shared)
        for way in snapshot.transports.values():
            made.push_async_callback(way.close)
        yield Prepared(loaded, snapshot, wiring.listener_options(loaded), doors)
        made.pop_all()


def needs_restart(old: Loaded, new: Loaded) -> list[str]:
    """Return what keeps `new` from following `old` in one life of the daemon, a sentence each."""
    before, after = old.config, new.config
    pairs = {
        "state_dir": (before.state_dir, after.state_dir),
        "control": (before.control, after.control),
        "queue.url": (before.queue.url, after.queue.url),
    }
    changed = [f"{key} cannot change while the daemon runs: restart it" for key, (was, wanted) in pairs.items() if was != wanted]
    return [*changed, *_in_the_way(before, after)]


def _in_the_way(old: Config, new: Config) -> Iterator[str]:
    """Tell of new addresses that our own sockets keep from being opened, for the old ones serve until all is prepared."""
    listened = [listener.listen for listener in old.listeners]
    wanted = [listener.listen for listener in new.listeners if listener.listen not in listened]
    if new.http.listen != old.http.listen:
        wanted.append(new.http.listen)
    for listen in wanted:
        for ours in (*listened, old.http.listen):
            if meet(listen, ours):
                yield f"{listen} cannot be opened while the daemon, as it runs, listens on {ours}: restart it"
