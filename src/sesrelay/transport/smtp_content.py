"""The content of a message as it goes over an SMTP connection: fetched once, dot-stuffed, hardly ever changed otherwise.

Invariant: what leaves holds no bare CR, bare LF or NUL and ends with CRLF; a byte that had to change has a receipt.

Source: RFC 5321 §4.5.2 (transparency); RFC 1870 §3 (what SIZE counts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sesrelay.mail import headers
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import Content
from sesrelay.transport.signing import Signer


@dataclass(frozen=True)
class Wire:
    """What goes out. Units: `size` octets as RFC 1870 counts them, before dot-stuffing."""

    data: bytes
    eight_bit: bool
    utf8_header: bool
    changes: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def stuffed(self) -> bytes:
        """What goes out behind DATA, without the final dot."""
        stuffed = self.data.replace(b"\r\n.", b"\r\n..")
        return b"." + stuffed if stuffed.startswith(b".") else stuffed


def shaped(content: Canonical, *, for_ses: bool = False) -> tuple[bytes, tuple[str, ...]]:
    """Return the content as the next hop may have it, with receipts; `for_ses`: without the X-SES-* fields that SES takes orders from."""
    if not for_ses:
        return content, ()
    head, body = headers.split(content)
    head, removed = headers.without(head, lambda field: field.key.startswith("x-ses-"))
    return (headers.join(head, body), removed) if removed else (content, ())


def wire(data: bytes, changes: tuple[str, ...] = ()) -> Wire:
    """Make the octets to send of what is otherwise ready."""
    eight_bit = not data.isascii()
    utf8_header = eight_bit and not data[: headers.head_length(data)].isascii()
    return Wire(data, eight_bit, utf8_header, changes)


class Payload:
    """Fetches the content when the first host wants it, and keeps it for the next one. `changes`: receipts of the envelope."""

    def __init__(
        self, content: Content, *, for_ses: bool = False, signer: Signer | None = None, changes: tuple[str, ...] = ()
    ) -> None:
        self._content = content
        self._changes = changes
        self._for_ses = for_ses
        self._signer = signer
        self._wire: Wire | None = None

    async def load(self) -> Wire:
        """Return the content ready to send, signed last. Raises: SpoolError, Unsigned."""
        if self._wire is None:
            data, changes = shaped(await self._content.read(), for_ses=self._for_ses)
            if self._signer is not None:
                data, changes = await self._signer.signed(data, changes)
            self._wire = wire(data, self._changes + changes)
        return self._wire
