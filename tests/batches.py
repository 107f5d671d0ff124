"""Batches and contents for tests of transports."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, LaneKey, Placement
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.filed import Filed
from sesrelay.mail.outcome import Outcome
from sesrelay.seams import SpoolError

LANE = LaneKey("out", "somewhere")
HELLO = b"From: a@example.com\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\nSubject: hello\r\n\r\nHello.\r\n"


@dataclass
class Bytes:
    """Implements `sesrelay.seams.Content`."""

    data: bytes = HELLO

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self) -> bytes:
        return self.data


@dataclass
class Octets:
    """A file, as it were. Implements `sesrelay.mail.filed.Scratch`; `broken_from`: an octet that cannot be read."""

    data: bytes = b""
    broken_from: int | None = None

    def read_at(self, at: int, octets: int) -> bytes:
        if at + octets > len(self.data) or (self.broken_from is not None and at + octets > self.broken_from):
            raise SpoolError("the disk is broken")
        return self.data[at : at + octets]

    def append(self, data: bytes) -> None:
        self.data += data


def filed(content: bytes, broken_from: int | None = None) -> Filed:
    """Return `content`, whose header ends with an empty line, as it stands in a file behind other octets."""
    end = content.index(b"\r\n\r\n") + 4
    return Filed(content[:end], Octets(b"before" + content[end:], broken_from), 6, len(content) - end)


@dataclass
class InFile:
    """A content in a file."""

    data: Filed

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self) -> Filed:
        return self.data


@dataclass
class Unreadable:
    """A content that raises `error` when it is fetched."""

    error: Exception
    size: int = 100

    async def read(self) -> bytes:
        raise self.error


def batch(
    *recipients: str | Recipient,
    sender: str = "a@example.com",
    header_from: Sequence[str] = ("a@example.com",),
    lane: LaneKey = LANE,
    **envelope: Any,
) -> Batch:
    """Return one batch of one message to these recipients, by default to b@example.org."""
    to = tuple(Recipient(one) if isinstance(one, str) else one for one in recipients or ("b@example.org",))
    message = Message(
        "0123456789abc", Envelope(sender, to, **envelope), Origin(), len(HELLO), 1_800_000_000.0, header_from=tuple(header_from)
    )
    placement = Placement("default", lane)
    return Batch(lane, tuple(Delivery(DeliveryId(message.id, n), message, one, placement) for n, one in enumerate(to)))


def by_address(batch: Batch, outcomes: Any) -> dict[str, Outcome]:
    """Return outcomes by recipient address; fails where one is missing or too many."""
    assert set(outcomes) == {delivery.id for delivery in batch.deliveries}
    return {delivery.recipient.address: outcomes[delivery.id] for delivery in batch.deliveries}


async def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `true()`; fails after `seconds`."""
    import asyncio

    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


def unused_port() -> int:
    """Return a loopback port where nobody listens just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
