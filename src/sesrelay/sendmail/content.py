"""The message on its way from standard input to the wire: line ends, the lone dot, and memory that stays bounded.

Invariant: what is held in memory is at most MEMORY and one piece; the rest lies in an unnamed temporary file.
Invariant: every line ends with CR LF and nothing else is changed: a lone CR or a NUL is the relay's to judge.

Source: RFC 5321 §4.5.2 (dots on the wire), sendmail(8) -i (the lone dot of standard input).
"""

# ruff: noqa: PLC0415 - a module is loaded by the runs that want it

import os

from sesrelay.sendmail.exits import EX_DATAERR, Exit

MEMORY = 1024 * 1024
PIECE = 64 * 1024
_DOT = b"\r\n.\r\n"
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # of the lone dot, the longest first

TYPE_CHECKING = False  # typing's own takes as long to import as all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO


class Content:
    """A whole message: the first octets in memory, where its header can be changed, what does not fit behind them."""

    __slots__ = ("_begun", "_held", "_limit", "_limit_now", "_parts", "_rest", "ascii", "first", "size")

    def __init__(self, limit: "Callable[[], int]") -> None:
        self.first = b""
        self.size = 0
        self.ascii = True
        self._parts: list[bytes] = []
        self._held = b"\r\n"  # not part of it: the message begins as if behind a line end
        self._begun = False
        self._rest: BinaryIO | None = None
        self._limit = limit
        self._limit_now = MEMORY

    @property
    def whole(self) -> bool:
        """All of it is in memory."""
        return self._rest is None

    def replace_first(self, first: bytes) -> None:
        """Put other octets in the place of those in memory."""
        self.size += len(first) - len(self.first)
        self.first = first
        self.ascii = self.ascii and first.isascii()

    def pieces(self) -> "Iterator[bytes]":
        """Yield the message in order, in pieces of any size."""
        yield self.first
        if self._rest is not None:
            self._rest.seek(0)
            while piece := self._rest.read(PIECE):
                yield piece

    def stuffed(self) -> "Iterator[bytes]":
        """Yield the message as it goes over the wire: dots at the beginning of lines doubled, the end mark behind."""
        last = b"\r\n"
        for piece in self.pieces():
            if not piece:
                continue
            # What the last piece ended with decides about a dot at the beginning of this one.
            data = last + piece
            yield data.replace(b"\r\n.", b"\r\n..")[len(last) :] if b"\r\n." in data else piece
            last = _line_end_begun(data)
        yield b".\r\n"

    def _add(self, data: bytes) -> None:
        self.size += len(data)
        self.ascii = self.ascii and data.isascii()
        if self.size > self._limit_now:
            self._limit_now = self._limit()  # asked only for what is large, as the answer takes a connection
            if self.size > self._limit_now:
                raise Exit(EX_DATAERR, f"the message is larger than the {self._limit_now} octets that the relay takes")
            if self._rest is None:
                import tempfile

                self._rest = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it ends with the process
        if self._rest is None:
            self._parts.append(data)
        else:
            view = memoryview(data)
            while view:
                view = view[self._rest.write(view) :]

    def read(self, source: int, *, dot_ends: bool) -> None:
        """Take the message from the file descriptor `source` to its end. Raises: Exit where it is too large, OSError"""
        cr = b""
        ended = False
        while not ended and (piece := _read(source)):
            data = cr + piece
            cr = b"\r" if data.endswith(b"\r") else b""
            ended = self._take((data[:-1] if cr else data).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), dot_ends)
        if not ended:
            self._take(cr, dot_ends)
            self._finish(dot_ends)
        self.first = b"".join(self._parts)
        self._parts.clear()

    def _take(self, data: bytes, dot_ends: bool) -> bool:
        """Take canonical octets; tell whether the lone dot was among them."""
        data = self._held + data
        found = data.find(_DOT) if dot_ends else -1
        if found >= 0:
            self._held = b""
            self._keep(data[: found + 2])
            return True
        held = next((beginning for beginning in _BEGINNINGS if data.endswith(beginning)), b"")
        self._held = held
        self._keep(data[: len(data) - len(held)])
        return False

    def _finish(self, dot_ends: bool) -> None:
        data, self._held = self._held, b""
        if dot_ends and data == b"\r\n.":
            data = b"\r\n"
        self._keep(data)
        if self.size and not data.endswith(b"\r\n"):
            self._add(b"\r\n")

    def _keep(self, data: bytes) -> None:
        if data and not self._begun:
            self._begun = True
            data = data[2:]
        if data:
            self._add(data)


def _read(source: int) -> bytes:
    while True:
        try:
            return os.read(source, PIECE)
        except BlockingIOError:  # whoever shares the pipe has set O_NONBLOCK
            import select

            select.select([source], [], [])


def _line_end_begun(data: bytes) -> bytes:
    return b"\r\n" if data.endswith(b"\r\n") else b"\r" if data.endswith(b"\r") else b""
