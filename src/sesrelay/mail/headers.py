"""Reading and cutting the header of a message as bytes, so that what is not touched leaves as it came.

Content is a whole message with CRLF line ends; `head` is its header with the last field's CRLF, without the empty line.

Invariant: no function here changes a byte of the body, or of a field that it does not name.

Source: RFC 5322 §2.2, §3.6; RFC 5321 §4.4 (Received).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import formataddr

from sesrelay.mail import bare
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.mailboxes import mailboxes
from sesrelay.mail.value import value

SUBJECT_MAX = 200  # characters kept for people to recognise a message by
SUBJECT_READ = 4 * 1024  # octets that are decoded for it: a megabyte of encoded words would take seconds
ADDRESSES_MAX = 16 * 1024  # octets of addresses that are read, for the same reason: some hundred of them

# No group is repeated possessively: Python before 3.11.5 then goes on behind what did not match (gh-106052).
_BEGINS = re.compile(rb"[!-9;-~]++[ \t]*+:[^\n]*+\n")
_STOPS = re.compile(rb"\n(?![!-9;-~]++[ \t]*+:[^\n]*+\n|[ \t][^\n]*+\n)")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]*\n)(?:[ \t][^\n]*\n)*)")
_FACTS = re.compile(
    rb"^(from|message-id|subject|received|bcc|resent-bcc|return-path|sender|reply-to|to|cc"
    rb"|precedence|auto-submitted|list-id|list-unsubscribe)[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)",
    re.I | re.M,
)
_MARKS = frozenset({b"precedence", b"auto-submitted", b"list-id", b"list-unsubscribe"})
_ADDRESSED = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc"})
_BARE = re.compile(
    r"\s*+(?:\"?(?P<before>[^\"<>(),]*+)\"?\s*+<(?P<in>[A-Za-z0-9._+-]++)>"
    r"|(?P<alone>[A-Za-z0-9._+-]++)(?:\s*+\((?P<after>[^()]*+)\))?)\s*+\Z"
)
# With a colon it is a field, as of old (RFC 5322 §4.5); a text may begin like an mbox, so what counts stands in front of fields.
_MBOX = re.compile(rb"(?:>*From (?![ \t]*:)[^\r\n]*\r\n){1,9}(?=[!-9;-~]+[ \t]*:)")
_NEVER_LEAVES = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_SIMPLE_FROM = re.compile(
    rb"[ \t]*+(?:[A-Za-z0-9 !#$%&'*+/=?^_`{|}~.-]*+<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]++@[A-Za-z0-9.-]++)>"
    rb"|([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]++@[A-Za-z0-9.-]++))[ \t]*+\r?\n\Z"
)
_FOLD = re.compile(r"\r?\n(?=[ \t])")


@value(frozen=True, slots=True)
class Marks:
    """What a header says of who waits for it: Precedence, Auto-Submitted, and whether it is to a list."""

    precedence: str = ""
    auto_submitted: str = ""
    listed: bool = False


NO_MARKS = Marks()


@value(frozen=True, slots=True)
class Facts:
    """What acceptance wants to know of a header. `received` counts the Received fields (loops)."""

    header_from: tuple[str, ...]
    message_id: str
    subject: str
    received: int
    has_private: bool
    """There is a field that must never leave: Bcc, Resent-Bcc or Return-Path."""
    unqualified: bool = False
    """There is a From, Sender, Reply-To, To or Cc that may hold a name without a domain."""
    marks: Marks = NO_MARKS
    endless_from: bool = False
    """What is in From is more than is read (ADDRESSES_MAX); `header_from` is empty then."""


@value(frozen=True, slots=True)
class Field:
    """One header field; `raw` is the whole of it, folding and final CRLF included."""

    name: str
    raw: bytes

    @property
    def key(self) -> str:
        return self.name.lower()

    @property
    def value(self) -> str:
        """The unfolded value; bytes that are not UTF-8 become U+FFFD."""
        return unfold(self.raw.partition(b":")[2])


def head_length(content: bytes) -> int:
    """Return where the header of `content` ends: at the empty line, or at the first line that is no field."""
    found = _STOPS.search(content) if _BEGINS.match(content) else None
    return found.end() if found else 0


def split(content: bytes) -> tuple[bytes, bytes]:
    """Return header and body; the empty line between them belongs to neither."""
    end = head_length(content)
    body = content[end:]
    return content[:end], body[2:] if body.startswith(b"\r\n") else body


def with_head(content: Canonical, end: int, head: bytes) -> Canonical:
    """Return `content` with `head`, canonical fields, instead of its first `end` octets, its `head_length`.

    One copy: it may be large.
    """
    rest = memoryview(content)[end:]
    return Canonical(b"".join((head, rest) if content.startswith(b"\r\n", end) else (head, b"\r\n", rest)))


def join(head: bytes, body: bytes) -> bytes:
    return b"%b\r\n%b" % (head, body)


def fields(head: bytes) -> list[Field]:
    return [Field(found[1].decode("ascii"), found[0]) for found in _FIELD.finditer(head)]


def facts(head: bytes) -> Facts:
    """Read what acceptance needs in one pass over `head`."""
    senders: list[bytes] = []
    message_id = subject = b""
    received = 0
    private = unqualified = False
    marked: dict[bytes, bytes] = {}
    for found in _FACTS.finditer(head):
        name = found[1].lower()
        if name == b"received":
            received += 1
        elif name == b"from":
            senders.append(found[2])
        elif name in _ADDRESSED:
            unqualified = unqualified or bare.possible(found[2])
        elif name == b"message-id":
            message_id = message_id or found[2]
        elif name == b"subject":
            subject = subject or found[2]
        elif name in _NEVER_LEAVES:
            private = True
        elif name in _MARKS:
            marked[name] = marked.get(name, found[2])
    marks = _marks(marked) if marked else NO_MARKS
    endless = sum(map(len, senders)) > ADDRESSES_MAX
    simple = _SIMPLE_FROM.match(senders[0]) if len(senders) == 1 else None
    if simple:
        named: tuple[str, ...] = ((simple[1] or simple[2]).decode("ascii"),)
    else:
        named = () if endless else addresses(map(unfold, senders))
        unqualified = unqualified or any(map(bare.possible, senders))
    return Facts(named, unfold(message_id), _readable(subject), received, private, unqualified, marks, endless)


def _marks(marked: Mapping[bytes, bytes]) -> Marks:
    precedence, auto_submitted = (unfold(marked.get(name, b"")) for name in (b"precedence", b"auto-submitted"))
    return Marks(precedence, auto_submitted, b"list-id" in marked or b"list-unsubscribe" in marked)


def value_of(head: bytes, name: str) -> str | None:
    """Return the value of the first field called `name`; None where there is none."""
    wanted = name.lower()
    return next((field.value for field in fields(head) if field.key == wanted), None)


def without_envelope_line(content: Canonical) -> tuple[Canonical, tuple[str, ...]]:
    """Return `content` without the mbox line `From address date`, or several and quoted ones, that some programs leave on top.

    Source: Postfix smtpd(8), sendmail(1).
    """
    found = _MBOX.match(content)
    return (Canonical(content[found.end() :]), ("removed the mbox From line",)) if found else (content, ())


def completed(head: bytes, domain: str, sender: str) -> tuple[bytes, tuple[str, ...]]:
    """Return `head` with bare names in address fields completed by `domain`, and with a From where it has none; and receipts.

    A field that is too odd to complete (`mail.bare`) stays as it is. So does one larger than ADDRESSES_MAX, and whatever is more
    than one such field of each name would bring. `sender` stands in for a missing From; the null sender cannot.
    Source: Postfix append_at_myorigin, cleanup(8).
    """
    kept: list[bytes] = []
    receipts: list[str] = []
    unread = len(_ADDRESSED) * ADDRESSES_MAX  # each of them may be there once
    for field in fields(head):
        raw = field.raw
        if field.key.encode() in _ADDRESSED and len(raw) <= min(ADDRESSES_MAX, unread):
            unread -= len(raw)
            raw = _completed(field, domain)
            if raw != field.raw:
                receipts.append(f"completed {field.name}")
        kept.append(raw)
    if sender and not any(field.key == "from" for field in fields(head)):
        kept.append(f"From: {sender}\r\n".encode())
        receipts.append("added From")
    return b"".join(kept), tuple(receipts)


def _completed(field: Field, domain: str) -> bytes:
    name, colon, rest = field.raw.partition(b":")
    if not bare.possible(rest):
        return field.raw
    found = [_BARE.match(part) for part in field.value.split(",")]
    if "@" in field.value or ":" in field.value or not all(found):
        return name + colon + bare.completed(rest, domain)
    # Nothing but names, as programs of Unix write them: `root (Cron Daemon)`, of which some readers would not show the name.
    named = [((each["before"] or "").rstrip() or each["after"] or "", each["in"] or each["alone"]) for each in found if each]
    value = ", ".join(formataddr((who, f"{local}@{domain}")) for who, local in named)
    return f"{field.name}: {value}\r\n".encode()


def without_private(head: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return `head` without Bcc, Resent-Bcc and Return-Path, and a receipt for each field taken out."""
    return without(head, lambda field: field.key.encode() in _NEVER_LEAVES)


def without(head: bytes, unwanted: Callable[[Field], bool]) -> tuple[bytes, tuple[str, ...]]:
    """Return `head` without the fields that are `unwanted`, and a receipt for each field taken out."""
    kept: list[bytes] = []
    receipts: list[str] = []
    for field in fields(head):
        if unwanted(field):
            receipts.append(f"removed {field.name}")
        else:
            kept.append(field.raw)
    return (b"".join(kept), tuple(receipts)) if receipts else (head, ())


def automatic(head: bytes) -> bool:
    """Tell whether no person wrote it, by its own word (RFC 3834 §5), or it is itself a report (RFC 6522)."""
    for field in fields(head):
        value = field.value.partition(";")[0].partition("(")[0].strip().lower()
        if (field.key == "auto-submitted" and value not in ("", "no")) or (
            field.key == "content-type" and value == "multipart/report"
        ):
            return True
    return False


def unfold(value: bytes) -> str:
    """Return a field's value in one line."""
    return _FOLD.sub("", value.decode("utf-8", "replace")).strip()


def addresses(values: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses of address-list header values, in order, without names; what is no address is left out."""
    return tuple(address for _, address in mailboxes(values) if "@" in address)


def _readable(value: bytes) -> str:
    text = unfold(value[:SUBJECT_READ])
    if "=?" in text:
        try:
            text = str(make_header(decode_header(text)))
        except (HeaderParseError, LookupError, ValueError):
            return text[:SUBJECT_MAX]
    return text[:SUBJECT_MAX]
