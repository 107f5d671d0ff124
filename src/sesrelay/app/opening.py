"""The sockets that a start opens, or has from systemd.

Invariant: what nothing of ours can be sure to have left behind stays: another program's socket, a file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

from sesrelay.config.model import Config
from sesrelay.control.server import MODE
from sesrelay.listener import sockets


def listeners(config: Config, trouble: Callable[[str, BaseException | None], None]) -> Iterator[tuple[str, socket.socket]]:
    """Yield each listener's socket, by `listen`. Raises: ListenError"""
    listens = [listener.listen for listener in config.listeners]
    given, unnamed = sockets.activated(listens, os.environ)
    for problem in unnamed:
        trouble(problem, None)
    for listen in listens:
        yield listen, given[listen] if listen in given else sockets.bind(listen)


def control(config: Config) -> sockets.UnixListener:
    """Return the control socket. Raises: ListenError"""
    return sockets.bind_unix(str(config.control), f"control: {config.control}", "control", MODE)
