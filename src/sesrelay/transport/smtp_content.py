"""The content of a message as it goes over an SMTP connection: fetched once, dot-stuffed, hardly ever changed otherwise.

Invariant: what leaves holds no bare CR, bare LF or NUL and ends with CRLF; a byte that had to change has a receipt.

Source: RFC 5321 §4.5.2 (transparency); RFC 1870 §3 (what SIZE counts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from sesrelay.mail import headers
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import Content


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


def wire(content: Canonical, *, for_ses: bool = False) -> Wire:
    """Make the octets to send of a message's content; `for_ses`: without the X-SES-* fields that SES takes orders from."""
    data: bytes = content
    changes: tuple[str, ...] = ()
    if for_ses:
        head, body = headers.split(data)
        head, removed = headers.without(head, lambda field: field.key.startswith("x-ses-"))
        if removed:
            data, changes = headers.join(head, body), changes + removed
    eight_bit = not data.isascii()
    utf8_header = eight_bit and not data[: headers.head_length(data)].isascii()
    return Wire(data, eight_bit, utf8_header, changes)


class Payload:
    """Fetches the content when the first host wants it, and keeps it for the next one. `changes`: receipts of the envelope."""

    def __init__(self, content: Content, *, for_ses: bool = False, changes: tuple[str, ...] = ()) -> None:
        self._content = content
        self._changes = changes
        self._for_ses = for_ses
        self._wire: Wire | None = None

    async def load(self) -> Wire:
        """Return the content ready to send. Raises: SpoolError."""
        if self._wire is None:
            made = wire(await self._content.read(), for_ses=self._for_ses)
            self._wire = replace(made, changes=self._changes + made.changes) if self._changes else made
        return self._wire
