"""Replies of an SMTP host out of the octets that come: no input or output here, only reading.

Invariant: what cannot be a reply, or has no end, is `Garbage`; a host can make nobody keep more than a reply's worth of it.

Source: RFC 5321 §4.2, §4.2.1 (multi-line replies), §4.5.3.1.5 (a reply line has 512 octets; hosts send longer ones).
"""

from __future__ import annotations

import re
from typing import NamedTuple

LINE_LIMIT = 8 * 1024  # octets
REPLY_LIMIT = 32 * 1024
TEXT_LIMIT = 4 * 1024  # octets of a reply's text that are kept: what people read of it
_PLAIN = rb"([0-9]{3}) ([^\n]{0,512})\n"
_ALL_PLAIN = re.compile(b"(?:%b)+" % _PLAIN.replace(b"(", b"(?:"))
_EACH = re.compile(_PLAIN)


class Garbage(Exception):
    """The host does not speak SMTP, or stopped doing so."""


class Said(NamedTuple):
    """One reply: its code, and its text with the lines of a multi-line reply joined by LF."""

    code: int
    text: bytes


class ReplyReader:
    """Cuts a stream into replies. The code of a multi-line reply is its last line's, as Postfix reads it."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    @property
    def midway(self) -> bool:
        """A reply has begun that has not ended."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes, into: list[Said]) -> None:
        """Append each reply that `data` completes. Raises: Garbage, after what came before it."""
        if not self.midway and _ALL_PLAIN.fullmatch(data):  # one line each, and whole: what nearly all of them are
            into += [Said(int(code), text.strip()) for code, text in _EACH.findall(data)]
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line, into)
        if len(self._rest) > LINE_LIMIT:
            raise Garbage("its answer never ended")

    def _line(self, line: bytes, into: list[Said]) -> None:
        code, mark = line[:3], line[3:4]
        if len(code) != 3 or not code.isdigit() or mark.isdigit():
            raise Garbage(f"it answered {line[:80].decode('utf-8', 'replace').strip()!r}")
        text = line[4:].strip()
        self._size += len(line)
        if len(line) > LINE_LIMIT or self._size > REPLY_LIMIT:
            raise Garbage("its answer never ended")
        if mark == b"-":
            self._lines.append(text)
            return
        if self._lines:
            text = b"\n".join((*self._lines, text))
            self._lines = []
        self._size = 0
        into.append(Said(int(code), text[:TEXT_LIMIT]))
