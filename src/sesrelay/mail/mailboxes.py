"""The addresses in a header's address list, as the standard library reads them, and read alike whatever Python runs.

Invariant: a list that looks forged is read all the same. Python 3.13, and what distributions have patched before, finds nothing
at all in one (CVE-2023-27043); who guards a domain would then see nobody, and a mail program somebody.
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterable
from typing import Any

_LENIENT: dict[str, Any] = {"strict": False} if getattr(email.utils, "supports_strict_parsing", False) else {}


def mailboxes(values: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names and addresses in some header values, in order; what is no address stands there as it is.

    What is nested beyond all reason holds none.
    """
    try:
        return email.utils.getaddresses(list(values), **_LENIENT)
    except RecursionError:  # a thousand comments or groups inside each other
        return []
