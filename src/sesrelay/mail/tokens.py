"""The tokens of a header field that holds addresses: what is quoted, what is a comment, and what stands for itself.

Invariant: one pass, however deep comments are nested.

Source: RFC 5322 §3.2 (atoms, quoted strings, comments), §3.4.1 (domain literals).
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]++|\\.)*")|(?P<literal>\[[^\[\]]*+\])|(?P<atom>[^\s<>,;:()\[\]"@\\]++)|(?P<space>\s++)|(?P<sign>.)""",
    re.S,
)
_IN_COMMENT = re.compile(r"[^()\\]++|\\.|.", re.S)


Token = tuple[str, str, int]
"""Its kind (quoted, literal, atom, space or sign), its text, where it ends in what was read; a comment is a space without text."""


def tokens(text: str) -> list[Token] | None:
    """Return the tokens of `text` without what comments say, or None where a quote or a comment has no end."""
    found: list[Token] = []
    depth = at = 0
    while at < len(text):
        match = (_IN_COMMENT if depth else _TOKEN).match(text, at)
        assert match is not None
        at = match.end()
        if match[0] in ("(", ")"):
            depth += 1 if match[0] == "(" else -1
            if not depth:
                found.append(("space", "", at))
        elif not depth:
            found.append((match.lastgroup or "", match[0], at))
        if depth < 0 or (not depth and match[0] in ('"', "\\")):
            return None
    return None if depth else found
