"""What goes between the daemon and its writer: pickled objects, each behind its length.

Both ends are ours and of one version, and nobody else has the socket: what is read was written by this program.
"""

from __future__ import annotations

import pickle
from typing import Any

_LENGTH = 4  # octets


def frame(thing: object) -> bytes:
    data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(_LENGTH, "big") + data


class Frames:
    """Takes a stream as it comes, and gives the objects in it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Return what is whole now."""
        rest = self._rest
        if rest:
            rest += data
            data = rest
        found: list[Any] = []
        start = 0
        with memoryview(data) as view:
            while len(view) - start >= _LENGTH:
                end = start + _LENGTH + int.from_bytes(view[start : start + _LENGTH], "big")
                if len(view) < end:
                    break
                with view[start + _LENGTH : end] as pickled:
                    found.append(pickle.loads(pickled))  # noqa: S301 - our own, see above
                start = end
        if data is rest:
            del rest[:start]
        else:
            rest += data[start:]
        return found
