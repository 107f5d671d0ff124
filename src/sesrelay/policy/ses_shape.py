"""From what applications send to what SES takes: a compiler with a receipt for each change.

Invariant: a message that breaks no rule leaves byte for byte, but for its Message-ID, which also goes into References.
Invariant: what is returned breaks no rule, and is returned as it is when it is given again.

Source: SES developer guide, "Amazon SES header fields" (fields that may stand once), "X-headers that SES obeys", "Quotas"
(lines); docs/ses.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from sesrelay.mail import headers, recoding
from sesrelay.mail.dates import rfc5322
from sesrelay.mail.filed import Filed, Large, opening
from sesrelay.mail.headers import Field
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.outcome import Failed, Scope
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy.ses_senders import Verified, nobody_knows, rewritten
from sesrelay.policy.ses_signatures import unbroken

_ONCE_NAMES = """
    accept-language acceptlanguage archived-at auto-submitted bounces-to comments content-alternative content-base
    content-class content-description content-disposition content-duration content-id content-language content-length
    content-location content-md5 content-transfer-encoding content-type date delivered-to disposition-notification-options
    disposition-notification-to dkim-signature domainkey-signature errors-to from importance in-reply-to keywords
    list-archive list-help list-id list-owner list-post list-subscribe list-unsubscribe list-unsubscribe-post
    message-context message-id mime-version organization original-from original-message-id original-recipient
    original-subject precedence priority references reply-to return-path return-receipt-to sender solicitation sensitivity
    subject thread-index thread-topic user-agent vbr-info
"""
ONCE = frozenset(_ONCE_NAMES.split())
"""Fields of which SES takes one only; a second one refuses the message for good. In lower case."""

_OBEYED = "x-ses-"  # SES takes orders from these; an application must not give them unless it is trusted to
_PRIVATE = frozenset({"bcc", "resent-bcc", "return-path"})
_SIGNED = "dkim-signature"
_ONCE_OCTETS = frozenset(name.encode() for name in ONCE)
_WANTED = frozenset({b"from", b"date"})
_LOOKED_AT = frozenset({b"bcc", b"resent-bcc", b"return-path", b"dkim-signature"})
_ANSWERS = frozenset({b"references", b"in-reply-to"})
_NAMES = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.M)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:\s*(<[^<>\s]{1,900}>)\s*\r\n(?![ \t])", re.I | re.M)
_REFERENCE = re.compile(rb"<[^<>\s]+>")


@value(frozen=True, slots=True)
class Rules:
    """What one transport asks for. `trusted`: X-SES-* names in lower case that may stay."""

    trusted: frozenset[str] = frozenset()
    thread_ids: bool = True
    rewrite_from: str | None = None


@value(frozen=True, slots=True)
class Facts:
    """What is known of one message. `source`: the address that SES is given as envelope sender; `accepted`: Unix seconds.

    `verified` tells of an address whether the account has verified it, None where nobody knows. `also_once`: names in
    lower case that SES refused to take twice.
    """

    source: str
    accepted: float
    verified: Verified = nobody_knows
    also_once: frozenset[str] = field(default=frozenset())


@value(frozen=True, slots=True)
class Shaped:
    """What SES is given: the content, and `source` as its envelope sender."""

    content: Large
    changes: tuple[str, ...]
    source: str


def shape(content: Large, rules: Rules, facts: Facts) -> Shaped | Failed:
    """Return `content` as SES takes it with receipts of what was changed, or why no change can make it so.

    Takes microseconds where there is nothing to encode anew, else some 10 ms a megabyte. Content in a file is `plain`.
    """
    if isinstance(content, Filed):  # what is to be done is in its header, and is done as to a message without a body
        made = shape(Canonical(content.head), rules, facts)
        return made if isinstance(made, Failed) else replace(made, content=content.with_head(opening(made.content)))
    end = headers.head_length(content)
    head = content[:end]
    if rules.rewrite_from is None and recoding.fits(content):
        names = [name.lower() for name in _NAMES.findall(head)]
        if not _breaks_a_rule(names, rules, facts):
            found = _MESSAGE_ID.search(head) if rules.thread_ids else None
            if found is None:
                return Shaped(content, (), facts.source)
            if _ANSWERS.isdisjoint(names):
                threaded = b"%bReferences: %b\r\n" % (head, found[1])
                return Shaped(headers.with_head(content, end, threaded), (_THREADED,), facts.source)
    return _shape_slowly(content, end, rules, facts)


_THREADED = "put Message-ID into References"
_LOCAL_PART = "Route mail with such an address through a transport that supports SMTPUTF8, or use an ASCII address."
_SEALED = "Have the application encode the message (quoted-printable or base64, lines of 76) before it signs or encrypts."


@dataclass(slots=True)
class _Sheet:
    """The header while it is worked on. `touched`: keys of fields that are no longer what a signature covered."""

    fields: list[Field]
    receipts: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    def note(self, key: str, receipt: str) -> None:
        self.touched.add(key)
        self.receipts.append(receipt)


def _shape_slowly(content: Canonical, end: int, rules: Rules, facts: Facts) -> Shaped | Failed:
    sheet = _Sheet(headers.fields(content[:end]))
    _prune(sheet, rules, facts)
    _complete(sheet, facts)
    source = facts.source
    if rules.rewrite_from is not None:
        changed = rewritten(sheet.fields, source, rules.rewrite_from, facts.verified)
        sheet.fields, source = changed.fields, changed.source
        for key, receipt in changed.receipts:
            sheet.note(key, receipt)
    if rules.thread_ids:
        _thread(sheet)
    work = _joined(content, end, sheet)
    made = recoding.recoded(work)
    if isinstance(made, recoding.Stuck):
        enhanced, what, remedy = ("5.6.7", "header", _LOCAL_PART) if made.address else ("5.6.0", "content", _SEALED)
        return Failed(Reply(554, enhanced, f"SES cannot transport the {what} of this message: {made.why}"), Scope.MESSAGE, remedy)
    sheet.receipts += made.changes
    sheet.touched |= made.fields
    end = headers.head_length(made.content)
    sheet.fields = headers.fields(made.content[:end])
    removed = unbroken(sheet.fields, sheet.touched, body_changed=made.body)
    if removed.receipts:
        sheet.fields = removed.fields
        sheet.receipts += removed.receipts
    done = _joined(made.content, end, sheet)
    return Shaped(done, tuple(sheet.receipts), source)


def _joined(content: Canonical, end: int, sheet: _Sheet) -> Canonical:
    head = b"".join(each.raw for each in sheet.fields)
    return content if content.startswith(head) and len(head) == end else headers.with_head(content, end, head)


def _breaks_a_rule(names: list[bytes], rules: Rules, facts: Facts) -> bool:
    """Tell by the `names` of all fields, in lower case, whether a closer look is due for anything but References."""
    different = set(names)
    if not different >= _WANTED or not _LOOKED_AT.isdisjoint(different):
        return True
    if len(different) != len(names):
        single = [name for name in names if name in _ONCE_OCTETS]
        if len(set(single)) != len(single):
            return True
    if facts.also_once:
        return True
    return any(name.startswith(b"x-ses-") and name.decode() not in rules.trusted for name in different)


def _prune(sheet: _Sheet, rules: Rules, facts: Facts) -> None:
    """Take out what must not leave, what gives orders, and what stands a second time; signatures are looked at last."""
    once = (ONCE | facts.also_once) - {_SIGNED}
    first: dict[str, Field] = {}
    kept: list[Field] = []
    for each in sheet.fields:
        key = each.key
        if key in _PRIVATE or (key.startswith(_OBEYED) and key not in rules.trusted):
            sheet.note(key, f"removed {each.name}")
        elif key in once and key in first:
            same = "identical to" if each.value == first[key].value else "different from"
            sheet.note(key, f"removed another {each.name}, {same} the first")
        else:
            first.setdefault(key, each)
            kept.append(each)
    sheet.fields = kept


def _complete(sheet: _Sheet, facts: Facts) -> None:
    present = {each.key for each in sheet.fields}
    if "from" not in present and facts.source:
        sheet.fields.append(Field("From", f"From: {facts.source}\r\n".encode()))
        sheet.note("from", "added From")
    if "date" not in present:
        sheet.fields.append(Field("Date", f"Date: {rfc5322(facts.accepted)}\r\n".encode()))
        sheet.note("date", "added Date")


def _thread(sheet: _Sheet) -> None:
    """Put Message-ID at the end of References: SES overwrites the former, and whoever answers later names the latter.

    Where there is only In-Reply-To, its ids go first: a reader that finds References looks at nothing else.
    """
    by_key = {each.key: each for each in reversed(sheet.fields)}
    found = _MESSAGE_ID.match(by_key["message-id"].raw) if "message-id" in by_key else None
    if found is None:
        return
    own = found[1]
    references = by_key.get("references")
    if references is None:
        before = _REFERENCE.findall(by_key["in-reply-to"].raw) if "in-reply-to" in by_key else []
        ids = list(dict.fromkeys([*before, own]))
        sheet.fields.append(Field("References", b"References: " + b"\r\n ".join(ids) + b"\r\n"))
    elif own in _REFERENCE.findall(references.raw):
        return
    else:
        line = references.raw.rstrip() + b"\r\n " + own + b"\r\n"
        sheet.fields[sheet.fields.index(references)] = Field(references.name, line)
    sheet.note("references", _THREADED)


_WHY = (
    ("removed Bcc", "it would be visible to every recipient"),
    ("removed Resent-Bcc", "it would be visible to every recipient"),
    ("removed Return-Path", "the final host adds it"),
    ("removed x-ses-", "it controls SES; list it in trusted_headers to keep it"),
    ("removed another", "SES accepts only one of these, and refuses a message with a second one"),
    ("added ", "SES requires one"),
    ("completed ", "an address needs a domain; local.domain was added"),
    (_THREADED, "SES replaces the Message-ID, and replies to this one would not be threaded"),
    ("encoded as ", "a part that declares nothing else must be ASCII in lines of at most 998 octets"),
    ("encoded ", "SES does not support SMTPUTF8"),
    ("broke ", "no line may have more than 998 octets"),
    (recoding.LEFT, "SES accepts it, but may damage 8-bit octets that no part declares"),
    ("repaired quoted-printable", "its rules allow neither long lines nor 8-bit octets"),
    ("bare ", "only CR LF ends a line in mail"),
    ("NUL ", "mail must not contain NUL"),
)


def why(receipt: str) -> str:
    """Return the reason for a change, empty where its receipt says it already."""
    return next((reason for start, reason in _WHY if receipt.lower().startswith(start.lower())), "")
