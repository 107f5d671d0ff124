"""The structure of MIME content, cut so that what is put together again is the same octets.

Invariant: `b"".join` of what `pieces` returns is what it was given.

Source: RFC 2045 §5, §6; RFC 2046 §5.1 (multipart).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

from sesrelay.mail import headers
from sesrelay.mail.headers import Field

LINE_MAX = 998  # octets without the line end, RFC 5322 §2.1.1
DEPTH_MAX = 50  # real mail nests less than ten deep
TYPE_READ = 16 * 1024  # characters of a Content-Type: the library takes quadratic time over its parameters
_COMMENT = re.compile(r"\([^()]*\)")
_TOKEN = re.compile(r"[^\s\"'();,]+")
_MEANT = {"8-bit": "8bit", "8bits": "8bit", "8-bits": "8bit", "7-bit": "7bit", "7bits": "7bit", "7-bits": "7bit"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What the header of an entity says of its body, in lower case. `encoding`: any word, empty where none is declared."""

    type: str
    encoding: str
    charset: str | None = None
    boundary: bytes | None = None

    @property
    def eight_bit_declared(self) -> bool:
        return self.encoding in ("8bit", "binary")

    @property
    def multipart(self) -> bool:
        return self.type.startswith("multipart/")

    @property
    def signed(self) -> bool:
        """A change inside would break a signature, or what is encrypted (RFC 1847)."""
        return self.type in ("multipart/signed", "multipart/encrypted")


def kind(fields: list[Field], default: str = "text/plain") -> Kind:
    """Return what `fields` declare, `default` where they name no type."""
    content_type = encoding = None
    for field in fields:
        if field.key == "content-type":
            content_type = content_type or field.value
        elif field.key == "content-transfer-encoding":
            encoding = encoding or _encoding(field.value)
    if not content_type:
        return Kind(default, encoding or "")
    read = Message()
    read["Content-Type"] = content_type[:TYPE_READ]
    try:
        boundary, charset = read.get_boundary(), read.get_content_charset()
    except (TypeError, ValueError):  # a parameter whose parts contradict each other: the library cannot sort them
        boundary = charset = None
    edge = boundary.encode("utf-8", "surrogateescape") if boundary else None
    return Kind(read.get_content_type(), encoding or "", charset, edge)


def _encoding(value: str) -> str:
    """Return the encoding that is meant, which many write with a comment, in quotes or with a hyphen."""
    found = _TOKEN.search(_COMMENT.sub(" ", value))
    token = found[0].lower() if found else ""
    return _MEANT.get(token, token)


def cut(entity: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the header of an entity, the empty line behind it where there is one, and the body."""
    end = headers.head_length(entity)
    gap = b"\r\n" if entity.startswith(b"\r\n", end) else b""
    return entity[:end], gap, entity[end + len(gap) :]


def pieces(body: bytes, boundary: bytes) -> list[bytes] | None:
    """Cut the body of a multipart: the preamble, then delimiter and entity in turn, then the end and the epilogue.

    Return None where there is no delimiter. Where the last one is missing, the epilogue is empty.
    """
    edge = b"--" + boundary
    found: list[bytes] = []
    at = start = 0
    while (here := body.find(edge, at)) != -1:
        at = here + len(edge)
        if here and not body.endswith(b"\r\n", 0, here):
            continue  # within a line
        closes = body.startswith(b"--", at)
        if closes:
            at += 2
        line_end = body.find(b"\r\n", at)
        stop = len(body) if line_end == -1 else line_end
        if body[at:stop].strip(b" \t"):
            continue  # a longer boundary that begins like this one
        # The line end in front belongs to the delimiter, and so does the one behind, but for the last delimiter.
        before = max(here - 2, start)
        behind = stop if closes or line_end == -1 else stop + 2
        found += [body[start:before], body[before:behind]]
        start = at = behind
        if closes:
            return [*found, body[start:]]
    return [*found, body[start:], b"", b""] if found else None


def has_long_line(content: bytes) -> bool:
    """Tell whether a line has more than LINE_MAX octets. Looks at one octet in a thousand."""
    at, size = 0, len(content)
    while at + LINE_MAX < size:
        found = content.rfind(b"\n", at, at + LINE_MAX + 2)
        if found == -1:
            return True
        at = found + 1
    return False
