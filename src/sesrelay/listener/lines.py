"""Command lines out of what has come so far.

Invariant: one line or one fault for each line of the client, however the stream is split.
Invariant: what is kept of a line that is refused is one octet.

Source: RFC 5321 §2.3.8, §4.5.3.1.4.
"""

from __future__ import annotations

import enum

LINE_MAX = 4096  # octets of a command line; RFC 5321 wants 512 and what each extension adds
SKIP_MAX = 64 * 1024  # octets of a refused line that are read to get to its end, before the client is cut


class Fault(enum.Enum):
    """What is wrong with a command line before it is looked into."""

    TOO_LONG = enum.auto()
    BARE_LF = enum.auto()
    ENDLESS = enum.auto()


class LineTaker:
    """Takes lines from the front of a buffer. `skipping`: octets that may yet be read of a line that was refused."""

    __slots__ = ("skipping",)

    def __init__(self) -> None:
        self.skipping = 0

    def take(self, buffer: bytearray) -> bytearray | Fault | None:
        """Remove the next line and return it without its end; None: it has not all come."""
        if self.skipping:
            fault = self._skip(buffer)
            if self.skipping:
                return fault
        end = buffer.find(b"\n", 0, LINE_MAX)
        if end > 0 and buffer[end - 1] == 13:
            line = buffer[: end - 1]
            del buffer[: end + 1]
            return line
        if end < 0 and len(buffer) < LINE_MAX:
            return None
        self.skipping = SKIP_MAX
        return Fault.TOO_LONG if end < 0 else Fault.BARE_LF

    def _skip(self, buffer: bytearray) -> Fault | None:
        """Drop the rest of a refused line, as far as it has come."""
        end = buffer.find(b"\r\n")
        if end >= 0:
            self.skipping = 0
            del buffer[: end + 2]
            return None
        drop = max(len(buffer) - 1, 0)  # the last octet may be a CR
        self.skipping -= drop
        del buffer[:drop]
        if self.skipping <= 0:
            self.skipping = 1
            return Fault.ENDLESS
        return None
