"""What a reload cannot put in force.

Invariant: what is named here is named before anything is prepared, and the remedy is a restart.
"""

from __future__ import annotations

from collections.abc import Iterator

from sesrelay.config.addresses import meet
from sesrelay.config.loading import Loaded
from sesrelay.config.model import Config


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
