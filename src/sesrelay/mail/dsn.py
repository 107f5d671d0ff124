"""Delivery status notifications: the report that a sender gets about its message.

Invariant: a report has a null envelope sender, says Auto-Submitted, and carries no line end but CRLF.
Invariant: its text for a person begins with what to do.
Invariant: beyond `To`, nothing of a report's own header is anything but ASCII; what is not stands in the parts.

Source: RFC 3461 §4.3, §6, RFC 3464, RFC 6522; RFC 6533 §3 (addresses that are not ASCII); RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sesrelay.mail import headers, orcpt
from sesrelay.mail.advice import advice
from sesrelay.mail.dates import rfc5322
from sesrelay.mail.envelope import Message, Recipient

Kind = Literal["failed", "delayed", "relayed"]

FULL_MAX = 65536  # octets of an original that is returned whole where nobody asked for that (Postfix: bounce_size_limit)
FULL_ASKED_MAX = 4 << 20  # with RET=FULL; what is larger would not get through everywhere, and its header tells enough
LINE_MAX = 998  # octets, RFC 5322 §2.1.1: what is longer may be cut on its way back
INDENT = " " * 4
FOLDED = 240  # characters of a line of a host's words: four octets each at most

_ENDLESS = re.compile(rf"\S{{{FOLDED}}}", re.A)  # no line would hold it; a blank of another script does not end it here
_STATUS = re.compile(r"\d{3} ([245]\.\d{1,3}\.\d{1,3})")
_CLASS = {"failed": "5", "delayed": "4", "relayed": "2"}
_SUBJECT = {
    "failed": "Undelivered mail returned to sender",
    "delayed": "Delayed mail: delivery will be tried again",
    "relayed": "Your mail was passed on to another mail system",
}
_HAPPENED = {
    "failed": "It could not be delivered to {whom} below. No further attempt will be made.",
    "delayed": "It has not been delivered to {whom} below yet.",
    "relayed": "It was passed on for {whom} below.",
}


@dataclass(frozen=True, slots=True)
class Reported:
    """One recipient of a report. `reply` is the last answer, as `mail.reply.Reply` prints it; `remedy` says what to do.

    `answered` tells a person who gave that answer, where it was not this relay. `host` is the mail host that gave it, and
    `source` its kind (`smtp`, `X-Amazon-SES`, …; RFC 3464 §2.3.6). Units: `attempted` Unix seconds of the last attempt, None:
    there was none.
    """

    recipient: Recipient
    reply: str
    answered: str = ""
    remedy: str = ""
    host: str = ""
    source: str = "X-sesrelay"
    attempted: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A report to be written. Units: `now` and `until` (when a delayed message is given up) Unix seconds.

    `sender` is the address in From; `queue_id` the report's own.
    """

    kind: Kind
    original: Message
    reported: Sequence[Reported]
    sender: str
    hostname: str
    queue_id: str
    now: float
    until: float | None = None

    @property
    def global_(self) -> bool:
        """The sender reads UTF-8 in headers: it sent such a message (RFC 6533 §3)."""
        addresses = (self.original.sender, *(one.recipient.address for one in self.reported))
        return self.original.envelope.smtputf8 and not "".join(addresses).isascii()


def compose(report: Report, content: bytes) -> bytes:
    """Return the report as content with CRLF line ends. `content` is the original's."""
    original, boundary = report.original, f"=_{report.queue_id}/{report.hostname}"
    thread = f"In-Reply-To: {original.message_id}\nReferences: {original.message_id}\n" if _is_id(original.message_id) else ""
    head = (
        f"Date: {rfc5322(report.now)}\nFrom: Mail Delivery System <{report.sender}>\nTo: <{original.sender}>\n"
        f"Subject: {_SUBJECT[report.kind]}\nMessage-ID: <{report.queue_id}@{report.hostname}>\n{thread}"
        "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"\n'
    )
    returned_type, returned = _returned(report, content)
    status = _status(report)
    status_type = "message/global-delivery-status" if report.global_ else "message/delivery-status"
    parts = (
        _part("Notification", "text/plain; charset=utf-8", _explanation(report, returned_type)),
        _part("Delivery report", status_type, status),
        _part("Undelivered Message", returned_type, "", ascii_only=returned.isascii()),
    )
    body = "\n".join(f"--{boundary}\n{part}" for part in parts)
    text = f"{head}\nThis is a MIME-encapsulated message.\n\n{body}".replace("\n", "\r\n").encode("utf-8", "replace")
    return b"%b%b\r\n--%b--\r\n" % (text, returned, boundary.encode())


def with_sender(content: bytes, sender: str) -> bytes:
    """Return a report of ours with another address in From."""
    head, body = headers.split(content)
    fields = (
        f"From: Mail Delivery System <{sender}>\r\n".encode() if field.key == "from" else field.raw
        for field in headers.fields(head)
    )
    return headers.join(b"".join(fields), body)


def _part(description: str, content_type: str, text: str, *, ascii_only: bool = True) -> str:
    encoding = "7bit" if ascii_only and text.isascii() else "8bit"
    return f"Content-Description: {description}\nContent-Type: {content_type}\nContent-Transfer-Encoding: {encoding}\n\n{text}"


# --- for a person ---


def _explanation(report: Report, returned_type: str) -> str:
    original = report.original
    subject = f' "{_printable(original.subject)}"' if original.subject else ""
    about = f"This is about your message{subject}"
    whom = "the recipient" if len(report.reported) == 1 else "the recipients"
    happened = _HAPPENED[report.kind].format(whom=whom)
    lines = [*_what_to_do(report), _filled(f"{about} of {rfc5322(original.accepted)}. {happened}"), ""]
    for one in report.reported:
        lines.append(f"<{one.recipient.address}>")
        if one.reply:
            lines.append(_filled(f"{one.answered or report.hostname} said: {one.reply}", INDENT))
        if report.kind == "delayed" and one.remedy:
            lines.append(_filled(f"For the administrator of {report.hostname}: {one.remedy}", INDENT))
        lines.append("")
    whole = returned_type in ("message/rfc822", "message/global")
    returned = "your message" if whole else "the header of your message"
    lines.append(_filled(f"Attached are a delivery report for mail programs and {returned}."))
    lines.append(f"Queue id: {original.id} at {report.hostname}. `sesrelay trace {original.id}` there shows its history.")
    return "\n".join(lines) + "\n"


def _what_to_do(report: Report) -> list[str]:
    """Return the first paragraphs: what to do, once for all recipients to whom it applies."""
    if report.kind == "delayed":
        until = f"until {rfc5322(report.until)}" if report.until else "until the message expires"
        text = f"Further attempts to deliver your message will be made {until}. You will be told if they fail."
        return [_filled(f"What to do: nothing. {text}"), ""]
    if report.kind == "relayed":
        text = "Your message was passed on to a mail system that does not send delivery reports"
        return [_filled(f"What to do: nothing. {text}, so this is the last report about it from here."), ""]
    groups: dict[str, list[str]] = {}
    for one in report.reported:
        groups.setdefault(one.remedy or advice(one.reply), []).append(one.recipient.address)
    lines: list[str] = []
    for remedy, addresses in groups.items():
        for_whom = f" about {', '.join(addresses)}" if len(groups) > 1 else ""
        lines += [_filled(f"What to do{for_whom}: {remedy}"), ""]
    return lines


def _filled(text: str, indent: str = "") -> str:
    ended = _ENDLESS.sub(r"\g<0> ", text)
    return textwrap.fill(ended, 72, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


# --- for a program ---


def _status(report: Report) -> str:
    original = report.original
    lines = [f"Original-Envelope-Id: {_decoded(original.envelope.envid)}"] if original.envelope.envid else []
    lines += [
        f"Reporting-MTA: dns; {report.hostname}",
        f"X-Sesrelay-Queue-ID: {original.id}",
        f"X-Sesrelay-Sender: {_typed(original.sender, as_is=report.global_)}",
        f"Arrival-Date: {rfc5322(original.accepted)}",
    ]
    for one in report.reported:
        lines += ["", *_recipient(report, one)]
    text = "\n".join(lines) + "\n"
    return text if report.global_ else text.encode("ascii", "replace").decode()  # RFC 3464 §2.1: 7bit


def _recipient(report: Report, one: Reported) -> Iterable[str]:
    yield f"Final-Recipient: {_typed(one.recipient.address, as_is=report.global_)}"
    if one.recipient.orcpt:
        yield f"Original-Recipient: {_original_recipient(one.recipient.orcpt, as_is=report.global_)}"
    yield f"Action: {report.kind}"
    yield f"Status: {_status_code(report.kind, one.reply)}"
    if one.host:
        yield f"Remote-MTA: dns; {_host(one.host)}"
    if one.reply:
        said = f"Diagnostic-Code: {one.source}; {_printable(one.reply)}"
        yield textwrap.fill(said, FOLDED, subsequent_indent=" ", break_on_hyphens=False)
    if one.attempted is not None:
        yield f"Last-Attempt-Date: {rfc5322(one.attempted)}"
    if report.kind == "delayed" and report.until is not None:
        yield f"Will-Retry-Until: {rfc5322(report.until)}"


def _status_code(kind: Kind, reply: str) -> str:
    """Return the status of the answer, where it is of the class that the action has (RFC 3464 §2.3.4)."""
    found = _STATUS.match(reply)
    if found and found[1][0] == _CLASS[kind]:
        return found[1]
    if kind == "failed" and reply.startswith("4"):
        return "5.4.7"  # put off until its time was over: delivery time expired, RFC 3463 §3.5
    return f"{_CLASS[kind]}.0.0"


def _returned(report: Report, content: bytes) -> tuple[str, bytes]:
    """Return the type and bytes of the third part: the original whole, or its header.

    Only a report of failure returns it whole, and RET decides (RFC 3461 §4.3).
    """
    ret = report.original.envelope.ret
    limit = {"HDRS": -1, "FULL": FULL_ASKED_MAX, None: FULL_MAX}[ret] if report.kind == "failed" else -1
    if len(content) <= limit and max(map(len, content.split(b"\r\n")), default=0) <= LINE_MAX:
        return "message/global" if report.global_ else "message/rfc822", content
    head = headers.split(content)[0]
    return "message/global-headers" if report.global_ else "text/rfc822-headers", head


def _typed(address: str, *, as_is: bool) -> str:
    """Return an address with its type; one that is not ASCII escaped, except in a part that is UTF-8 (RFC 6533 §3)."""
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {address if as_is else orcpt.escaped(address)}"


def _original_recipient(given: str, *, as_is: bool) -> str:
    """Return ORCPT as it was before its encoding (RFC 3461 §4.2); a `utf-8` one as `_typed` has it."""
    kind, _, encoded = given.partition(";")
    if kind.lower() != orcpt.UTF8:
        return f"{kind};{_decoded(encoded)}"
    address = orcpt.unescaped(encoded)
    return f"{kind};{_printable(address if as_is else orcpt.escaped(address))}"


def _decoded(xtext: str) -> str:
    """Return what `xtext` stands for, on one line."""
    return _printable(orcpt.decoded(xtext))


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name or name.replace(".", "").isdigit() else name


def _is_id(message_id: str) -> bool:
    """Tell whether a Message-ID may stand in a header of ours."""
    return bool(message_id) and message_id.isascii() and message_id.isprintable() and len(message_id) <= LINE_MAX - 20


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
