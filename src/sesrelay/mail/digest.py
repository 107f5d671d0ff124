"""The one message that stands for many identical ones.

Source: RFC 2046 §5.1.3, §5.2.1 (a message within a message); RFC 3834 §5.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sesrelay.mail import headers
from sesrelay.mail.dates import rfc5322
from sesrelay.mail.lineends import Canonical, canonical

WHOLE_MAX = 64 * 1024
"""Octets up to which the first one is in the digest as a whole; of a larger one only the header is."""
_COPIED = frozenset({"from", "sender", "reply-to", "to", "cc"})


def compose(
    first: bytes, folded: int, *, queue_id: str, hostname: str, route: str, limit: int, began: float, last: float, now: float
) -> Canonical:
    """Return the digest that tells of `folded` messages like `first`. Units: times Unix seconds."""
    head, _ = headers.split(first)
    copied = b"".join(field.raw for field in headers.fields(head) if field.key in _COPIED)
    subject = next((field.raw.partition(b":")[2].lstrip() for field in headers.fields(head) if field.key == "subject"), b"\r\n")
    boundary = f"=_{queue_id}/{hostname}"
    enclosed = (b"message/rfc822", first) if len(first) <= WHOLE_MAX else (b"text/rfc822-headers", head[:WHOLE_MAX])
    times = "one more time" if folded == 1 else f"{folded} more times"
    told = (
        f"The message below came {times} between {_clock(began)} and {_clock(last)} UTC, with the same sender,\r\n"
        f"recipients, subject and text. The route {route} sends at most {limit} identical messages an hour (storm_limit);\r\n"
        f"the others were folded into this digest.\r\n\r\n"
        f"`sesrelay trace {queue_id}` at {hostname} shows what happened to this digest. `sesrelay queue list --state failed`\r\n"
        f"lists the folded messages; their reason is `folded`.\r\n"
    )
    top = (
        f"Date: {rfc5322(now)}\r\nMessage-ID: <{queue_id}@{hostname}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\nContent-Transfer-Encoding: 8bit\r\n'
    )
    parts = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b" % told.encode(),
        b"Content-Type: %b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b" % enclosed,
    )
    mark = boundary.encode()
    text = copied + b"Subject: [%d more] %b%b\r\n" % (folded, subject, top.encode())
    content, _ = canonical(text + b"".join(b"--%b\r\n%b\r\n" % (mark, part) for part in parts) + b"--%b--\r\n" % mark)
    return content


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
