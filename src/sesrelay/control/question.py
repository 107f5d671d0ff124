"""One question to the daemon and its answer, without a loop: for verbs that are over before a loop were ready.

Invariant: imports little; `wire` describes the protocol.
Invariant: a daemon that is at work is waited for, and one that says nothing at all is told of. Source: unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

QUIET = 10.0  # seconds; what a daemon that lives answers at once takes no longer, however much it has to do
WORK_TIME = 600.0  # seconds without a word from a daemon that lives; a change of a million deliveries tells how far it is
HERE = b'{"verb": "here"}\n'


class ControlError(Exception):
    """The daemon answered that it cannot do it, or went away in the middle."""


class ControlRefusal(ControlError):
    """The daemon answered that it cannot do it."""


class OtherQueue(ControlRefusal):
    """The daemon that listens there is another queue's."""


class NoAnswer(ControlError):
    """A daemon listens there, and says nothing. `pid` is its process; 0: one that cannot be seen from here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.message = f"the daemon{f' (process {pid})' if pid else ''} does not answer within {QUIET:.0f}s"
        go_on = f"if somebody has stopped it: kill -CONT {pid}; otherwise " if pid else ""
        self.remedy = f"{go_on}restart it: systemctl restart sesrelay"
        super().__init__(f"{self.message}; {self.remedy}")


def ask(path: Path, queue: str, verb: str) -> Any:
    """Return the answer of the daemon of `queue`, a real path, that listens at `path`.

    Raises: OtherQueue, NoAnswer, ControlError; OSError where none listens
    """
    with connected(path) as connection:
        connection.settimeout(QUIET)
        try:
            connection.sendall(HERE)  # answered at once, so that who says nothing is known by one silence
            _line(connection, path, at_once=True)
            connection.sendall(json.dumps({"verb": verb, "queue": queue, "args": {}}).encode() + b"\n")
            line = _line(connection, path)
        except ConnectionError:
            line = b""
    return read(line)["end"]


def connected(path: Path) -> socket.socket:
    """Return a connection to the daemon that listens at `path`. Raises: NoAnswer where it takes none; OSError where none listens"""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A daemon that has long taken no connection has no room for one more; connect() then waits as long as sending may.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(QUIET), int(QUIET % 1 * 1e6)))
        connection.connect(str(path))
    except BlockingIOError:
        connection.close()
        raise NoAnswer(0) from None
    except BaseException:
        connection.close()
        raise
    return connection


def pid_of(connection: socket.socket) -> int:
    """Return the process that listens at the other end."""
    pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


def silent(path: Path, looks: int) -> None:
    """Find out why the daemon at `path` has said nothing `looks` times: at work, it answers somebody else.

    Raises: NoAnswer; ControlError where it has been silent for too long all the same
    """
    try:
        with connected(path) as other:
            other.settimeout(QUIET)
            try:
                other.sendall(HERE)
                other.recv(1)
            except TimeoutError:
                raise NoAnswer(pid_of(other)) from None
    except OSError:
        pass  # it has gone: so has the connection where it was asked
    if looks * QUIET >= WORK_TIME:
        raise ControlError(f"the daemon is running, but has not finished within {WORK_TIME:.0f}s; its log may say why")


def _line(connection: socket.socket, path: Path, *, at_once: bool = False) -> bytes:
    """Return what comes, to the end of a line or of all; `at_once`: within one wait. Raises: NoAnswer, ControlError"""
    got, looks = b"", 0
    while not got.endswith(b"\n"):
        try:
            part = connection.recv(1 << 16)
        except TimeoutError:
            if at_once:
                raise NoAnswer(pid_of(connection)) from None
            looks += 1
            silent(path, looks)
            continue
        if not part:
            break
        got += part
    return got


def read(line: bytes) -> dict[str, Any]:
    """Return the answer in `line`.

    Raises: ControlError where `line` was cut off before its end; OtherQueue, ControlRefusal
    """
    if not line.endswith(b"\n"):
        raise ControlError("the connection to the daemon was lost before it answered")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise (OtherQueue if "queue" in answer else ControlRefusal)(str(answer["error"]))
    return answer
