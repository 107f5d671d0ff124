"""The body of a call: what stands around the message, and the message in base64, made piece by piece.

Invariant: a large message is held once, as it is, or stays in its file; its encoding exists a piece at a time, for the hash
and again for the wire.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256

from sesrelay.mail.filed import PIECE as FILE_PIECE
from sesrelay.mail.filed import Filed
from sesrelay.mail.value import value
from sesrelay.transport.shaping import OFF_LOOP

WHOLE = 1024 * 1024  # octets of a message up to which its body is made as one: quicker, and small beside what else a message needs
PIECE = 48 * 1024  # octets encoded at once; a multiple of three, so that the pieces join without padding


@value(frozen=True, slots=True)
class Body:
    """`head` and `tail` go as they are. `escaped`: the base64 stands in a form, where `+`, `/` and `=` are percent-encoded."""

    head: bytes
    raw: bytes | Filed
    tail: bytes = b""
    escaped: bool = False

    def pieces(self) -> Iterator[bytes]:
        yield self.head
        if isinstance(self.raw, Filed):
            for piece in self.raw.pieces(FILE_PIECE):
                yield self._encoded(piece)
        else:
            with memoryview(self.raw) as view:
                for start in range(0, len(view), PIECE):
                    yield self._encoded(view[start : start + PIECE])
        if self.tail:
            yield self.tail

    def whole(self) -> bytes:
        return b"".join((self.head, self._encoded(self.raw[:]), self.tail))

    def _encoded(self, part: bytes | memoryview) -> bytes:
        data = binascii.b2a_base64(part, newline=False)
        return data.replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D") if self.escaped else data


@value(frozen=True, slots=True)
class Measured:
    """A body ready for the wire: `whole` where it is small, else sent piece by piece. Units: `size` octets."""

    body: Body
    digest: str
    size: int
    whole: bytes | None = None

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        if self.whole is not None:
            with memoryview(self.whole) as view:
                for start in range(0, self.size, PIECE):
                    yield view[start : start + PIECE]
            return
        pieces = self.body.pieces()
        if isinstance(self.body.raw, Filed):
            while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
                yield piece
        else:
            for piece in pieces:
                yield piece


async def measured(body: Body) -> Measured:
    """Return `body` with its SHA-256 in hexadecimal and its length."""
    return _measured(body) if len(body.raw) <= OFF_LOOP else await asyncio.to_thread(_measured, body)


def _measured(body: Body) -> Measured:
    if len(body.raw) <= WHOLE:
        whole = body.whole()
        return Measured(body, sha256(whole).hexdigest(), len(whole), whole)
    digest, size = sha256(), 0
    for piece in body.pieces():
        digest.update(piece)
        size += len(piece)
    return Measured(body, digest.hexdigest(), size)
