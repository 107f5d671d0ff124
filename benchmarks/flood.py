"""Fills a store with mail that waits, through the spool's own door, as fast as it takes it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from sesrelay.app.clock import SystemClock
from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import Submission
from sesrelay.spool.sqlite import SqliteSpool

AT_ONCE = 1_000
HEAD = b"From: %s\r\nTo: someone@example.net\r\nSubject: number %d\r\nMessage-ID: <%d@bench.example.com>\r\n\r\n"


def waiting(serial: int, sender: str, lane: LaneKey, size: int, accepted: float, due: float) -> Submission:
    """Return one message of about `size` octets that waits in `lane`; `serial` tells it from all others."""
    name = queue_id.encode(queue_id.number(accepted, 0) + serial)
    head = HEAD % (sender.encode(), serial, serial)
    content = Canonical(head + (b"x" * 70 + b"\r\n") * max((size - len(head)) // 72, 1))
    recipient = Recipient("someone@example.net")
    message = Message(
        name, Envelope(sender, (recipient,)), Origin("127.0.0.1:25", "127.0.0.1", "bench"), len(content), accepted,
        (sender,), f"<{serial}@bench.example.com>", f"number {serial}",
    )  # fmt: skip
    delivery = Delivery(
        DeliveryId(name, 0), message, recipient, Placement("example.com", lane, site="example.com"), State.QUEUED, due=due
    )
    return Submission(message, content, (delivery,))


async def fill(state: Path, messages: int, lanes: list[tuple[str, LaneKey, float]], size: int = 2048) -> float:
    """Store `messages`, in turn for each of `lanes`: sender, lane, and the seconds from now until it is due.

    Return the seconds it took.
    """
    began, now = time.perf_counter(), time.time()
    spool = await SqliteSpool.open(state, clock=SystemClock(), on_trouble=lambda what, error: print(what, error, file=sys.stderr))
    for first in range(0, messages, AT_ONCE):
        made = []
        for serial in range(first, min(first + AT_ONCE, messages)):
            sender, lane, wait = lanes[serial % len(lanes)]
            made.append(waiting(serial, sender, lane, size, now - 3600.0, now + wait))
        await asyncio.gather(*(spool.accept(each) for each in made))
    await spool.close()
    return time.perf_counter() - began
