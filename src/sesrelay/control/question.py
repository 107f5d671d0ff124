"""One question to the daemon and its answer, without a loop: for verbs that are over before a loop were ready.

Invariant: imports little; `wire` describes the protocol.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

ANSWER_TIME = 60.0  # seconds for one line; a change of a million deliveries comes in pages, and is told at its end


class ControlError(Exception):
    """The daemon answered that it cannot do it, or went away in the middle."""


class ControlRefusal(ControlError):
    """The daemon answered that it cannot do it."""


class OtherQueue(ControlRefusal):
    """The daemon that listens there is another queue's."""


def ask(path: Path, queue: str, verb: str) -> Any:
    """Return the answer of the daemon of `queue`, a real path, that listens at `path`.

    Raises: OtherQueue, ControlError; OSError where none listens
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIME)
        connection.connect(str(path))
        try:
            connection.sendall(json.dumps({"verb": verb, "queue": queue, "args": {}}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except TimeoutError:
            raise ControlError(f"the daemon does not answer within {ANSWER_TIME:.0f}s") from None
        except OSError:
            line = b""
    return read(line)["end"]


def read(line: bytes) -> dict[str, Any]:
    """Return the answer in `line`, as far as it came. Raises: ControlError where that is not to its end; OtherQueue, ControlRefusal"""
    if not line.endswith(b"\n"):
        raise ControlError("the daemon went away before it answered")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise (OtherQueue if "queue" in answer else ControlRefusal)(str(answer["error"]))
    return answer
