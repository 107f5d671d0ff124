"""Making a header acceptable to SES, with a receipt for each change.

Invariant: a message that breaks no rule leaves byte for byte, and no byte of a body is ever changed here.

Source: SES developer guide, "Amazon SES header fields" (fields that may stand once) and "X-headers that SES obeys".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sesrelay.mail import headers
from sesrelay.mail.headers import Field

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
_NAMES = re.compile(r"^([!-9;-~]+)[ \t]*:", re.M)


def shape(head: bytes, trusted: Iterable[str] = (), *, also_once: frozenset[str] = frozenset()) -> tuple[bytes, tuple[str, ...]]:
    """Return `head` as SES takes it and the receipts of what was changed.

    `trusted`: X-SES-* fields that may stay; `also_once`: more names, in lower case, of which one only may stand.
    """
    allowed = frozenset(name.lower() for name in trusted)
    once = ONCE | also_once if also_once else ONCE
    if not _breaks_a_rule(head, once, allowed):
        return head, ()
    first: dict[str, Field] = {}
    kept: list[bytes] = []
    receipts: list[str] = []
    for field in headers.fields(head):
        key = field.key
        if key in _PRIVATE or (key.startswith(_OBEYED) and key not in allowed):
            receipts.append(f"removed {field.name}")
        elif key in once and key in first:
            same = "identical to" if field.value == first[key].value else "different from"
            receipts.append(f"removed a further {field.name}, {same} the first")
        else:
            first.setdefault(key, field)
            kept.append(field.raw)
    return b"".join(kept), tuple(receipts)


def value_of(head: bytes, name: str) -> str | None:
    """Return the value of the first field called `name`, or None."""
    key = name.lower()
    if key.encode() not in head.lower():
        return None
    return next((field.value for field in headers.fields(head) if field.key == key), None)


def _breaks_a_rule(head: bytes, once: frozenset[str], allowed: frozenset[str]) -> bool:
    names = _NAMES.findall(head.lower().decode("latin-1"))
    single = [name for name in names if name in once]
    if len(set(single)) != len(single) or not _PRIVATE.isdisjoint(names):
        return True
    return any(name.startswith(_OBEYED) and name not in allowed for name in names)
