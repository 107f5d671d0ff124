"""User names and passwords in the one form that they are compared in, however they were typed.

What is forbidden there, controls above all, is left as it is: it only has to fit. Source: RFC 4616 §2; RFC 4013 §2.1, §2.2.
"""

from __future__ import annotations

import stringprep
import unicodedata


def prepared(text: str) -> str:
    """Return `text` with composed characters, every blank a space, and without what nobody sees."""
    if text.isascii():
        return text
    seen = (" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    return unicodedata.normalize("NFKC", "".join(seen))
