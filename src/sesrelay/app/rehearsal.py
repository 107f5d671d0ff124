"""What would keep a start on this machine, by this user and in this environment, from putting a configuration in force.

Invariant: nothing stays open, nothing is made, nobody but the kernel is asked.
Invariant: what may pass until the start is no problem: an address that is taken or not there yet, a port that this user may not
have, what another user's environment or files may name (an AWS region), and a network that is not up, as where an image is
built.
"""

from __future__ import annotations

import errno
import os

from sesrelay.app.clock import SystemClock
from sesrelay.app.ways_out import Shared, spare
from sesrelay.app.wiring import ladder, listener_options
from sesrelay.config.document import Document
from sesrelay.config.loading import Loaded
from sesrelay.config.model import RUN_DIR
from sesrelay.config.problem import KeyPath
from sesrelay.listener import sockets
from sesrelay.observe.fanout import Fanout
from sesrelay.setup.checkup.disk import relay_user


def rehearse(loaded: Loaded, document: Document) -> list[str]:
    """Report what a start would end for, each at the key that can mend it; return what may be otherwise for it, a line each."""
    ours = relay_user(loaded.config.state_dir, None) in (None, os.geteuid())
    elsewhere: list[str] = []
    shared = Shared(SystemClock(), Fanout(()))
    direct = ladder(loaded).direct
    for name in dict.fromkeys((*loaded.ways, *([direct] if direct else ()))):
        try:
            spare(name, loaded, shared)
        except (OSError, ValueError) as error:
            told = str(error).removeprefix(f"transports.{name}: ")
            if ours:
                document.report(("transports", name), told)
            else:
                elsewhere.append(f"transports.{name}: {told}")
    try:
        listener_options(loaded)
    except (OSError, ValueError) as error:
        told, owners = str(getattr(error, "strerror", "") or error), "access.local_users: "
        path: KeyPath = ("access", "local_users") if told.startswith(owners) else ("listeners",)
        if getattr(error, "errno", None) == errno.ENETUNREACH:
            elsewhere.append(told)
        else:
            document.report(path, told.removeprefix(owners))
    folder = next(each for each in (loaded.config.state_dir, *loaded.config.state_dir.parents) if os.path.lexists(each))
    if not os.path.isdir(folder):  # noqa: PTH112  # where it may not be looked at, it is none either
        document.report(("state_dir",), f"{folder} is not a folder (move it away, or set another one)")
    return elsewhere + _rehearse_doors(loaded, document, ours=ours)


def _rehearse_doors(loaded: Loaded, document: Document, *, ours: bool) -> list[str]:
    """`ours`: see `sockets.rehearse`."""
    away: list[str] = []
    config = loaded.config
    written = document.get(("listeners",)) or ()
    places = {each.get("listen"): index for index, each in enumerate(written)}  # those that are passed over are not in `config`
    wanted: list[tuple[KeyPath, str]] = [
        *((("listeners", places.get(each.listen, 0), "listen"), each.listen) for each in config.listeners),
        (("http", "listen"), config.http.listen),
        (("control",), f"{sockets.UNIX_PREFIX}{config.control}"),
    ]
    made = [f"{sockets.UNIX_PREFIX}{folder}/" for folder in (RUN_DIR, config.state_dir)]  # by the unit, by the start
    for path, listen in wanted:
        if any(listen.startswith(folder) for folder in made):
            continue
        try:
            sockets.rehearse(listen, "http.listen" if path[0] == "http" else str(path[0]), ours=ours)
        except sockets.AddressAway as error:
            away.append(str(error))
        except sockets.ListenError as error:
            document.report(path, str(error))
    return away
