"""The content of a message as it comes over the wire: up to the end mark, or in chunks of a size that is told before.

Invariant: only CR LF . CR LF ends a message, wherever the stream is split (inbound smuggling, CVE-2023-51764).
Invariant: what is held of a message that is not to be kept is never more than one piece.
Invariant: what is held of all messages is taken from one budget before it is held.

Source: RFC 5321 §4.1.1.4, §4.5.2; RFC 1870 §4 (the size counts neither stuffing nor the end mark); RFC 3030 §2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sesrelay.mail import headers
from sesrelay.mail.filed import Filed, Large, Scratch
from sesrelay.mail.lineends import Canonical, dotted, mended
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import TOO_LARGE
from sesrelay.policy.budget import COPIES_IN, Share
from sesrelay.seams import SpoolError

END = b"\r\n.\r\n"
STUFFED = b"\r\n."
# What a piece may end with that the next one can complete to the end mark, the longest first.
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")

# Octets: each object costs some forty more, so that a message which comes octet by octet would need forty times its size.
PART_MIN = 16 * 1024
# Octets: below, a message is let in whatever has been promised to others, and is held; above, it goes to a file as it comes.
LARGE = 1024 * 1024

NO_MEMORY = Reply(452, "4.3.1", "Too much mail is being received at once, try again later")
NO_DISK = Reply(452, "4.3.1", "Large mail cannot be written to the queue's disk right now, try again later")


class Incoming:
    """A message's content so far. `refusal`: why nothing of it is kept, once that is so; `trouble`: the error behind it.

    `scratch` gives a file for content too large to be held. Without one, or without a header that ends, all of it is held.

    Units: `limit`, `size`, `declared` octets of content as sent. `discard` or `content` gives back what it holds of the budget,
    the latter not before `discard` is called.
    """

    __slots__ = (
        "_file", "_head", "_held", "_last", "_parts", "_promised", "_receipts", "_rest", "_scratch", "_tail", "_taken",
        "budget", "limit", "refusal", "size", "trouble",
    )  # fmt: skip

    def __init__(self, limit: int, budget: Share, declared: int = 0, scratch: Callable[[], Scratch] | None = None) -> None:
        self.limit = limit
        self.budget = budget
        self.size = 0
        self.refusal: Reply | None = None
        self.trouble: SpoolError | None = None
        self._scratch = scratch
        self._file: Scratch | None = None
        self._head = self._last = b""  # of what is in the file
        self._rest = 0
        self._held = False  # a CR at the end of what has come, which the next octet may make a line end
        self._parts: list[bytes] = []
        self._tail = bytearray()
        self._receipts: tuple[str, ...] = ()
        self._taken = 0
        self._promised = 0
        if declared >= LARGE:
            octets = COPIES_IN * held_of(declared, scratch)
            if budget.fits(octets):
                self._promised = octets
                budget.promised += octets
            else:
                self.refusal = NO_MEMORY

    def add(self, data: bytes) -> None:
        """Keep the next octets, with their line ends made canonical; whatever cannot be kept is let go, and all before it."""
        self.size += len(data)
        if self.refusal is not None:
            return
        if self.size > self.limit:
            self.refuse(TOO_LARGE)
            return
        if self._held:
            data, self._held = b"\r" + data, False
        if data.endswith(b"\r"):
            data, self._held = data[:-1], True
        self._keep(*mended(data))

    def refuse(self, reply: Reply) -> None:
        """Keep nothing of it."""
        self.refusal = self.refusal or reply
        self.discard()

    @property
    def heavy(self) -> bool:
        """So much is held that it is to be put into a file."""
        return self._taken >= COPIES_IN * LARGE and self._scratch is not None

    @property
    def in_file(self) -> bool:
        return self._file is not None

    async def lighten(self) -> None:
        """Put what is held into a file; where that cannot be done, nothing of the message is kept."""
        if self._scratch is None:
            return
        if self._file is None:
            front = b"".join(self._parts)
            text, _ = headers.without_envelope_line(Canonical(front))
            end = headers.head_length(text)
            if not text.startswith(b"\r\n", end):  # no header that ends: such a thing is held, or turned away
                self._scratch = None
                return
            end += len(front) - len(text) + 2
            self._head, self._parts = front[:end], [front[end:]]
        parts, self._parts = self._parts, []
        try:
            self._file = await asyncio.to_thread(_written, self._file or self._scratch, parts)
        except SpoolError as error:
            self.trouble = error
            self.refuse(NO_DISK)
            return
        self._rest += sum(map(len, parts))
        self._last = parts[-1][-2:] if parts else self._last
        kept = COPIES_IN * (len(self._head) + len(self._tail))
        if self._taken > kept:
            self.budget.give(self._taken - kept)
            self._taken = kept

    def discard(self) -> None:
        """Let go of what is held, and of what it took of the budget."""
        self._file = None
        self._parts.clear()
        self._tail.clear()
        self.budget.promised -= self._promised
        self._promised = 0
        if self._taken:
            self.budget.give(self._taken)
            self._taken = 0

    def end(self) -> tuple[str, ...]:
        """Take note that all has come; return receipts of what was changed."""
        if self._held and self.refusal is None:
            self._keep(*mended(b"\r"))
        if self._tail:
            self._parts.append(bytes(self._tail))
            self._tail.clear()
        last = self._parts[-1] if self._parts else self._last
        if last and not last.endswith(b"\r\n"):
            self._parts.append(b"\r\n")
        return self._receipts

    def content(self) -> Large:
        """Return the content, which ends with a line end, once it has ended, and is `lighten`ed where it is `in_file`.

        Call it once: the pieces are let go.
        """
        if self._file is not None:
            return Filed(self._head, self._file, 0, self._rest)
        parts, self._parts = self._parts, []
        return Canonical(parts[0] if len(parts) == 1 else b"".join(parts))

    def _keep(self, data: bytes, receipts: tuple[str, ...]) -> None:
        if receipts:
            self._receipts += tuple(receipt for receipt in receipts if receipt not in self._receipts)
        octets = len(data)
        needed = COPIES_IN * octets
        if self._promised:
            kept = min(needed, self._promised)
            self._promised -= kept
            self.budget.promised -= kept
        if not self.budget.take(needed):
            self.refuse(NO_MEMORY)
            return
        self._taken += needed
        if self._tail or (octets < PART_MIN and self._parts):
            self._tail += data
            if len(self._tail) >= PART_MIN:
                self._parts.append(bytes(self._tail))
                self._tail.clear()
        elif data:
            self._parts.append(data)


def held_of(size: int, scratch: Callable[[], Scratch] | None) -> int:
    """Return how much of a message of so many octets is held at most."""
    return size if scratch is None else min(size, 2 * LARGE)


def _written(file: Scratch | Callable[[], Scratch], parts: list[bytes]) -> Scratch:
    made = file() if callable(file) else file
    for part in parts:
        made.append(part)
    return made


class Feed(Protocol):
    """Fed what has come, of which it takes its own off the front, until `feed` tells that it has its last octet.

    `incoming`: where they go, if anywhere.
    """

    @property
    def incoming(self) -> Incoming | None: ...
    def feed(self, buffer: bytearray) -> bool: ...


class DataFeed:
    """What follows DATA: up to the end mark, dot-stuffing undone."""

    __slots__ = ("_begins", "_held", "incoming")

    def __init__(self, incoming: Incoming) -> None:
        self.incoming: Incoming = incoming
        # The content starts at the beginning of a line: with a line end held, its first line is like every other.
        self._held = b"\r\n"
        self._begins = len(self._held)

    def feed(self, buffer: bytearray) -> bool:
        """Take the next octets; tell whether the message has ended with them."""
        data = self._held + buffer
        dot = dotted(data)
        end = data.find(END, dot) if dot >= 0 else -1  # it begins as a stuffed dot does: no second look at what is before
        if end >= 0:
            self._keep(data, end + 2, unstuff=dot < end)
            del buffer[: end + len(END) - len(self._held)]
            return True
        buffer.clear()
        cut = len(data)
        for beginning in _BEGINNINGS:
            if data.endswith(beginning):
                cut -= len(beginning)
                break
        self._held = data[cut:]
        if cut:
            self._keep(data, cut, unstuff=0 <= dot < cut)
        return False

    def _keep(self, data: bytes, end: int, *, unstuff: bool) -> None:
        # `data` begins at a border that no CR LF . crosses, so every stuffed dot stands whole in it.
        begins, self._begins = self._begins, 0
        self.incoming.add(data[:end].replace(STUFFED, b"\r\n")[begins:] if unstuff else data[begins:end])


class ChunkFeed:
    """What follows BDAT: so many octets, kept where `incoming` is there."""

    __slots__ = ("_left", "incoming")

    def __init__(self, octets: int, incoming: Incoming | None) -> None:
        self._left = octets
        self.incoming = incoming

    def feed(self, buffer: bytearray) -> bool:
        """Take the next octets; tell whether the chunk has ended with them."""
        mine = bytes(buffer[: self._left])
        del buffer[: len(mine)]
        self._left -= len(mine)
        if self.incoming is not None and mine:
            self.incoming.add(mine)
        return not self._left
