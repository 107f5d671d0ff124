"""Large content that stands in a file, as a value: its header at hand, the rest read a piece at a time.

It has a length and is cut like `bytes`; whoever wants more of `bytes` asks for `whole`, and has the memory for it.

Invariant: `head` is the whole header with the empty line behind it, so nothing that looks at a header reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from sesrelay.mail.lineends import Canonical
from sesrelay.mail.mime import has_long_line

PIECE = 240 * 1024
"""Octets that are read at once; a multiple of three, so that pieces encoded in base64 join without padding."""


class Source(Protocol):
    """A file. Blocks."""

    def read_at(self, at: int, octets: int) -> bytes:
        """Return exactly so many octets from octet `at` on. Raises: SpoolError"""


class Scratch(Source, Protocol):
    """A file that is written as content comes, and is gone when nobody holds it any more. Blocks."""

    def append(self, data: bytes) -> None:
        """Write at its end. Raises: SpoolError; then it is of no use any more."""


@dataclass(frozen=True, slots=True)
class Filed:
    """`head`, and behind it `rest` octets of `source` from octet `start` on. Each look behind `head` blocks. Raises: SpoolError"""

    head: bytes
    source: Source
    start: int
    rest: int

    def __len__(self) -> int:
        return len(self.head) + self.rest

    def __getitem__(self, part: slice) -> bytes:
        """Return the octets of a slice without a step."""
        begin, end, _ = part.indices(len(self))
        at_hand = len(self.head)
        if end <= at_hand:
            return self.head[begin:end]
        behind = max(begin - at_hand, 0)
        read = self.source.read_at(self.start + behind, end - at_hand - behind) if end > begin else b""
        return self.head[begin:] + read if begin < at_hand else read

    def pieces(self, octets: int = PIECE) -> Iterator[bytes]:
        """Yield it all, in pieces of so many octets."""
        for at in range(0, len(self), octets):
            yield self[at : at + octets]

    def whole(self) -> Canonical:
        """Return it all as one."""
        return Canonical(self[:])

    def with_head(self, head: bytes) -> Filed:
        """Return it with another header, the empty line behind it included."""
        return replace(self, head=head)

    def without_last(self, octets: int) -> Filed:
        """Return it without its last octets, which are none of the header's."""
        return replace(self, rest=self.rest - octets)


Large = Canonical | Filed
"""Content that may be too large to be held: as it is where it is held, else in its file."""


def opening(content: bytes | Filed) -> bytes:
    """Return octets from the beginning on, the whole header among them, without a look at any file."""
    return content.head if isinstance(content, Filed) else content


def whole_lines(content: bytes | Filed, start: int, end: int, octets: int = PIECE) -> bytes:
    """Return the next whole lines from `start` on, of about so many octets; or all up to `end`."""
    while start + octets < end:
        piece = content[start : start + octets]
        cut = piece.rfind(b"\n") + 1
        if cut:
            return piece[:cut]
        octets *= 2
    return content[start:end]


def plain(content: Filed) -> bool:
    """Tell whether every host takes it as it is: ASCII, and no line over 998 octets. Reads it once."""
    line = b""  # what has come of a line that goes on
    for piece in content.pieces():
        if not piece.isascii() or has_long_line(line + piece if line else piece):
            return False
        line = piece[piece.rfind(b"\n") + 1 :]
    return True
