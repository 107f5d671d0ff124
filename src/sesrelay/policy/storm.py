"""When the same message comes again and again: what makes two of them the same, and from which on they are folded.

Invariant: what is unlike in anything that a reader sees is not the same: sender, recipients, subject and body. Only what
programs make anew for each message is passed over: the rest of the header, and the boundaries of MIME parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sesrelay.mail import headers
from sesrelay.mail.filed import Filed, opening, whole_lines

WINDOW = 3600.0
"""Seconds, from the first message of its kind."""
KINDS_MAX = 10_000
"""Kinds of messages that are remembered; the oldest go first."""
_SEARCHED = 1 << 16  # octets of a body in which boundaries of parts within parts are looked for
_BOUNDARY = re.compile(rb'boundary="?([^";\s]{1,70})"?', re.IGNORECASE)


def fingerprint(sender: str, recipients: Iterable[str], subject: str, content: bytes | Filed) -> bytes:
    """Return what two messages that are the same have in common. Reads what is in a file a piece at a time. Raises: SpoolError"""
    front, end = opening(content), len(content)
    start = headers.head_length(front)
    parts = (front[:start], content[start : start + _SEARCHED])
    boundaries = {found[1] for part in parts for found in _BOUNDARY.finditer(part)}
    digest = hashlib.blake2b(digest_size=16)
    for part in (sender, *sorted(recipients), subject):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    while start < end:
        piece = whole_lines(content, start, end)  # no boundary crosses a line's end
        start += len(piece)
        for boundary in boundaries:
            piece = piece.replace(boundary, b"")
        digest.update(piece)
    return digest.digest()


@dataclass(slots=True)
class Kind:
    """Messages that are the same. `digest`: the queue id of the one that tells of those that were folded, once there is one."""

    began: float
    seen: int = 0
    digest: str | None = None

    @property
    def ends(self) -> float:
        return self.began + WINDOW


class Kinds:
    """What was seen of late, by fingerprint. Mutable, but without a clock."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, Kind] = {}

    def see(self, mark: bytes, limit: int, now: float) -> Kind | None:
        """Count a message; return its kind where it is one too many, None where it goes out."""
        kind = self._kinds.get(mark)
        if kind is None or not kind.began <= now < kind.ends:
            self._kinds.pop(mark, None)
            kind = self._kinds[mark] = Kind(now)
            if len(self._kinds) > KINDS_MAX:
                del self._kinds[next(iter(self._kinds))]
        kind.seen += 1
        return kind if kind.seen > limit else None
