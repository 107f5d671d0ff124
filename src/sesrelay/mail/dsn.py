"""Delivery status notifications: the report that a sender gets about its message.

Invariant: a report has a null envelope sender, says Auto-Submitted, and carries no line end but CRLF.

Source: RFC 3461 §6, RFC 3464, RFC 6522; RFC 6533 §3 (addresses that are not ASCII); RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sesrelay.mail import headers
from sesrelay.mail.address import domain_of
from sesrelay.mail.dates import rfc5322
from sesrelay.mail.envelope import Message, Recipient

Kind = Literal["failed", "delayed", "relayed"]

FULL_MAX = 65536  # octets of an original that is returned whole; beyond that its header (Postfix: bounce_size_limit)
LINE_MAX = 998  # octets, RFC 5322 §2.1.1: what is longer may be cut on its way back

_STATUS = re.compile(r"\d{3} ([245]\.\d{1,3}\.\d{1,3})")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_SUBJECT = {
    "failed": "Undelivered mail returned to sender",
    "delayed": "Delayed mail: still being tried",
    "relayed": "Your mail was handed on",
}
_OPENING = {
    "failed": "Your message could not be delivered to the recipients below, and will not be tried again.",
    "delayed": "Your message has not reached the recipients below yet. There is nothing you need to do: it is being tried "
    "until {until}, and you will be told if that fails.",
    "relayed": "Your message was handed on to a mail system that does not report on delivery itself. "
    "This is the last that will be heard of it from here.",
}


@dataclass(frozen=True, slots=True)
class Reported:
    """One recipient of a report. `reply` is the last answer, as `mail.reply.Reply` prints it; `remedy` says what to do.

    `nexthop` says for a person who answered; where it is a host name, `Remote-MTA` says it as well.
    """

    recipient: Recipient
    reply: str
    nexthop: str = ""
    remedy: str = ""


def compose(
    kind: Kind,
    original: Message,
    content: bytes,
    reported: Sequence[Reported],
    *,
    hostname: str,
    queue_id: str,
    now: float,
    until: float | None = None,
) -> bytes:
    """Return a report about `original` to its sender, as content with CRLF line ends.

    Units: `now` and `until` (when a delayed message is given up) Unix seconds. `content` is the original's.
    """
    boundary = f"=_{queue_id}/{hostname}"
    sender = f"mailer-daemon@{domain_of(original.sender) or hostname}"
    thread = f"In-Reply-To: {original.message_id}\nReferences: {original.message_id}\n" if original.message_id else ""
    head = (
        f"Date: {rfc5322(now)}\nFrom: Mail Delivery System <{sender}>\nTo: <{original.sender}>\n"
        f"Subject: {_SUBJECT[kind]}\nMessage-ID: <{queue_id}@{hostname}>\n{thread}Auto-Submitted: auto-replied\n"
        f'MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"\n'
    )
    returned_type, returned = _returned(original, content, kind)
    parts = (
        f"Content-Description: Notification\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
        f"{_explanation(kind, original, reported, hostname, until)}",
        f"Content-Description: Delivery report\nContent-Type: message/delivery-status\n\n"
        f"{_status(kind, original, reported, hostname, now, until)}",
    )
    encoding = "8bit" if not returned.isascii() else "7bit"
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    body += (
        f"--{boundary}\nContent-Description: Undelivered Message\nContent-Type: {returned_type}\n"
        f"Content-Transfer-Encoding: {encoding}\n\n"
    )
    text = f"{head}\nThis is a MIME-encapsulated message.\n\n{body}".replace("\n", "\r\n").encode("utf-8", "replace")
    return b"%b%b\r\n--%b--\r\n" % (text, returned, boundary.encode())


def _explanation(kind: Kind, original: Message, reported: Sequence[Reported], hostname: str, until: float | None) -> str:
    lines = [textwrap.fill(_OPENING[kind].format(until=rfc5322(until) if until else "it expires"), 72), ""]
    for one in reported:
        lines.append(f"<{one.recipient.address}>")
        if one.remedy:
            lines.extend(textwrap.wrap(f"What to do: {one.remedy}", 72, initial_indent="    ", subsequent_indent="    "))
        said = f"{one.nexthop or 'the mail system'} said: {one.reply}"
        lines.extend(textwrap.wrap(said, 72, initial_indent="    ", subsequent_indent="    "))
        lines.append("")
    if original.subject:
        lines.append(f"Subject of your message: {_printable(original.subject)}")
    lines.append(f"Queue id: {original.id} at {hostname}. `sesrelay trace {original.id}` there shows its whole life.")
    return "\n".join(lines) + "\n"


def _status(kind: Kind, original: Message, reported: Sequence[Reported], hostname: str, now: float, until: float | None) -> str:
    lines = [
        f"Reporting-MTA: dns; {hostname}",
        f"X-Sesrelay-Queue-ID: {original.id}",
        f"X-Sesrelay-Sender: {_typed(original.sender)}",
    ]
    if original.envelope.envid:
        lines.insert(0, f"Original-Envelope-Id: {_decoded(original.envelope.envid)}")
    lines.append(f"Arrival-Date: {rfc5322(original.accepted)}")
    for one in reported:
        status = _STATUS.match(one.reply)
        code = status[1] if status else {"failed": "5.0.0", "delayed": "4.0.0", "relayed": "2.0.0"}[kind]
        if kind == "failed" and not code.startswith("5"):
            code = "5.4.7"  # delivery time expired, RFC 3463 §3.5
        lines.append("")
        lines.append(f"Final-Recipient: {_typed(one.recipient.address)}")
        if one.recipient.orcpt:
            lines.append(f"Original-Recipient: {_decoded(one.recipient.orcpt)}")
        lines += [f"Action: {kind}", f"Status: {code}"]
        if one.nexthop and " " not in one.nexthop:
            lines.append(f"Remote-MTA: dns; {one.nexthop}")
        lines.append(f"Diagnostic-Code: smtp; {_printable(one.reply)}")
        lines.append(f"Last-Attempt-Date: {rfc5322(now)}")
        if kind == "delayed" and until is not None:
            lines.append(f"Will-Retry-Until: {rfc5322(until)}")
    return "\n".join(lines) + "\n"


def _returned(original: Message, content: bytes, kind: Kind) -> tuple[str, bytes]:
    """Return the type and bytes of the third part: the original whole, or its header."""
    whole = kind == "failed" and original.envelope.ret != "HDRS" and len(content) <= FULL_MAX
    if whole and max(map(len, content.split(b"\r\n")), default=0) <= LINE_MAX:
        return "message/rfc822", content
    return "text/rfc822-headers", headers.split(content)[0]


def _typed(address: str) -> str:
    """Return an address with its type; one that is not ASCII in the escaped form (RFC 6533 §3, utf-8-addr-xtext)."""
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in address)


def _decoded(xtext: str) -> str:
    """Return what `xtext` stands for (RFC 3461 §4), on one line."""
    return _printable(_XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
