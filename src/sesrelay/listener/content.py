"""The content of a message as it comes over the wire: up to the end mark, dot-stuffing undone, in pieces of any size.

Invariant: only CR LF . CR LF ends a message, wherever the stream is split (inbound smuggling, CVE-2023-51764).
Invariant: what is held beyond the limit is never more than one piece.

Source: RFC 5321 §4.1.1.4, §4.5.2; RFC 1870 §4 (the size counts neither stuffing nor the end mark).
"""

from __future__ import annotations

END = b"\r\n.\r\n"
# What a piece may end with that the next one can complete to the end mark, the longest first.
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class ContentReader:
    """Feed it pieces until `feed` returns what follows the message. Units: `limit` and `size` octets of content."""

    __slots__ = ("_first", "_held", "_parts", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        # The content starts at the beginning of a line: with a line end held, its first line is like every other.
        self._held = b"\r\n"
        self._first = True
        self._parts: list[bytes] = []

    def feed(self, piece: bytes) -> bytes | None:
        """Take the next piece; return None while the message goes on, and at its end the octets behind it."""
        data = self._held + piece
        end = data.find(END)
        if end >= 0:
            self._keep(data[: end + 2])
            return data[end + len(END) :]
        cut = len(data)
        for beginning in _BEGINNINGS:
            if data.endswith(beginning):
                cut -= len(beginning)
                break
        self._held = data[cut:]
        if cut:
            self._keep(data[:cut])
        return None

    @property
    def too_large(self) -> bool:
        return self.size > self.limit

    def content(self) -> bytes:
        """Return the content; empty where it was too large. Call it once, at the end: the pieces are let go."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _keep(self, data: bytes) -> None:
        # `data` begins at a border that no CR LF . crosses, so every stuffed dot stands whole in it.
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n")
        if self._first:
            self._first = False
            data = data[2:]
        self.size += len(data)
        if self.size > self.limit:
            self._parts.clear()
        else:
            self._parts.append(data)
