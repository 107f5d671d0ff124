"""The content of a message as it goes over an SMTP connection: fetched once, encoded anew where the host cannot take it, signed.

Invariant: what leaves holds no bare CR, bare LF or NUL and ends with CRLF; a byte that had to change has a receipt.
Invariant: what a host can take leaves as it came.

Source: RFC 5321 §4.5.2 (transparency), §4.5.3.1.6 (lines); RFC 6152 §3 (8-bit to 7-bit); RFC 1870 §3 (what SIZE counts).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sesrelay.mail import headers, recoding
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.filed import Filed
from sesrelay.mail.lineends import Canonical, dotted
from sesrelay.mail.mime import has_long_line
from sesrelay.mail.outcome import Deferred, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content, SpoolError
from sesrelay.transport.client.signing import Signer, Unsigned

AT_ONCE = 64 * 1024  # octets that are encoded anew in less time than a thread costs


@dataclass(frozen=True, slots=True)
class Stuffed:
    """Content in a file with its dots doubled, a piece at a time: cut as it stands in the file, a piece is longer by its dots."""

    content: Filed

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, part: slice) -> bytes:
        before = b"" if part.start else b"\n"  # a dot that begins a piece begins a line by what is in front of it
        data = before + self.content[max(part.start - 1, 0) : part.stop]
        return (data.replace(b"\n.", b"\n..") if b"." in data else data)[1:]


@value(frozen=True, slots=True)
class Wire:
    """What goes out. Units: `size` octets as RFC 1870 counts them, before dot-stuffing."""

    data: bytes | Filed
    eight_bit: bool
    utf8_header: bool
    changes: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def stuffed(self) -> bytes | Stuffed:
        """What goes out behind DATA, without the final dot."""
        if isinstance(self.data, Filed):
            return Stuffed(self.data)
        stuffed = self.data if dotted(self.data) < 0 else self.data.replace(b"\r\n.", b"\r\n..")
        return b"." + stuffed if stuffed.startswith(b".") else stuffed


def wire(data: bytes | Filed, changes: tuple[str, ...] = ()) -> Wire:
    """Make the octets to send of what is otherwise ready. What is in a file is `plain`."""
    if isinstance(data, Filed):
        return Wire(data, eight_bit=False, utf8_header=False, changes=changes)
    eight_bit = not data.isascii()
    utf8_header = eight_bit and not data[: headers.head_length(data)].isascii()
    return Wire(data, eight_bit, utf8_header, changes)


class Payload:
    """Fetches the content when the first host wants it, and keeps it for the next one. `changes`: receipts of the envelope;
    `left`: all of it may have been handed over, and no answer has come.
    """

    def __init__(self, content: Content, *, signer: Signer | None = None, changes: tuple[str, ...] = ()) -> None:
        self._content = content
        self._changes = changes
        self._signer = signer
        self._wires: dict[bool, Wire] = {}
        self.left = False

    async def load(self, *, seven_bit: bool = False) -> Wire:
        """Return the content ready to send, signed last.

        `seven_bit`: for a host that takes no other. Raises: SpoolError, Unsigned.
        """
        known = self._wires.get(seven_bit)
        if known is not None:
            return known
        original = await self._content.read()
        data: bytes | Filed = original
        more: tuple[str, ...] = ()
        if not isinstance(original, Filed):
            data, more = await self._recoded(original, seven_bit=seven_bit)
        if self._signer is not None:
            data, more = await self._signer.signed(data, more)
        made = wire(data, (*self._changes, *more))
        if data is not original:  # what the message needs is asked of it as it came, not as it was made for one host
            made = replace(made, utf8_header=wire(original).utf8_header)
        self._wires[seven_bit] = made
        return made

    async def _recoded(self, data: bytes, *, seven_bit: bool) -> tuple[bytes, tuple[str, ...]]:
        """Return what the host can take: no line over 998 octets, and where it wants that no octet over 127; and the receipts."""
        if recoding.fits(data) or not (self._too_long(data) or (seven_bit and not data.isascii())):
            return data, ()
        if len(data) > AT_ONCE:
            made = await asyncio.to_thread(recoding.recoded, Canonical(data), seven_bit=seven_bit)
        else:
            made = recoding.recoded(Canonical(data), seven_bit=seven_bit)
        if isinstance(made, recoding.Stuck):
            return data, (f"left as it is: {made.why}",)
        return made.content, made.changes

    def _too_long(self, data: bytes) -> bool:
        """Tell whether a line is longer than every host must take, and may be broken: who signed it would not want that."""
        if not has_long_line(data):
            return False
        return self._signer is not None or b"\ndkim-signature:" not in b"\n" + data[: headers.head_length(data)].lower()


Deliver = Callable[[Batch, Payload], Awaitable[Mapping[DeliveryId, Outcome]]]


async def carried(batch: Batch, payload: Payload, deliver: Deliver) -> Mapping[DeliveryId, Outcome]:
    """Return what `deliver` makes of a batch, or what it means for all that the content cannot be had, or was cut before it left.

    Raises: CancelledError where all of it may have left; whatever else `deliver` raises.
    """
    outcome: Outcome
    try:
        return await deliver(batch, payload)
    except asyncio.CancelledError:
        if payload.left:
            raise
        outcome = CUT
    except Unsigned as error:
        outcome = error.outcome
    except SpoolError as error:
        outcome = Deferred(unreadable(error), Scope.MESSAGE)
    return batch.for_all(outcome)


def unreadable(error: SpoolError) -> Reply:
    """Return what is said of content that the store does not give."""
    return Reply(451, "4.3.0", f"the content could not be read: {error}")
