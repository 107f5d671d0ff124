"""How urgent a message is, by what its header says and its route.

A header that the route trusts decides. Else what calls itself bulk goes low, whatever its route says, as newsletters and
password resets come from the same site; nothing but a route or a trusted header lifts a message.

Source: RFC 2919 (List-Id), RFC 2369 (List-Unsubscribe), RFC 3834 §5 (Auto-Submitted), RFC 2156 (Priority, Importance);
Precedence as sendmail has it.
"""

from __future__ import annotations

import re

from sesrelay.mail.delivery import Priority
from sesrelay.mail.headers import Marks

_BULK = frozenset({"bulk", "list", "junk"})
_WORDS = {
    "high": Priority.HIGH, "urgent": Priority.HIGH, "highest": Priority.HIGH, "1": Priority.HIGH, "2": Priority.HIGH,
    "normal": Priority.NORMAL, "medium": Priority.NORMAL, "3": Priority.NORMAL,
    "low": Priority.LOW, "non-urgent": Priority.LOW, "lowest": Priority.LOW, "4": Priority.LOW, "5": Priority.LOW,
}  # fmt: skip


def priority_by_header(marks: Marks, trusted: str | None) -> Priority | None:
    """Return what the header makes of the route's priority; None where it leaves it.

    `trusted`: the value of the header that the route trusts, None where there is none.
    """
    if trusted:
        word = trusted.replace("(", " ").split()
        found = _WORDS.get(word[0].lower()) if word else None
        if found is not None:
            return found
    return Priority.LOW if is_bulk(marks) else None


def is_bulk(marks: Marks) -> bool:
    """Tell whether nobody waits for it: to a list, to many, or an automatic answer. A notice (auto-generated) is not bulk."""
    return (
        marks.listed
        or marks.precedence.strip().lower() in _BULK
        or re.split("[;(]", marks.auto_submitted)[0].strip().lower() == "auto-replied"
    )
