"""Breaking header lines that are longer than any host need take.

Invariant: every line of what is returned has at most LINE_MAX octets; a field without long lines is returned as it is.

Source: RFC 5322 §2.1.1, §2.2.3 (folding).
"""

from __future__ import annotations

import re

from sesrelay.mail.headers import Field
from sesrelay.mail.mime import LINE_MAX, has_long_line

NAME_MAX = 600  # octets of a name that leave room to break the line behind it
_GOAL = 900  # octets: leaves room for what another relay may add
_BLANKS = re.compile(rb"[ \t]{200,}")  # nobody means anything by so many, and a line of nothing else is no continuation
_BETWEEN = re.compile(rb"[,;](?=[^ \t\r\n])|>(?=<)")


def folded(field: Field) -> Field:
    """Return `field` in lines that may be sent: broken at white space, else behind a comma, a semicolon or `>`, else anywhere.

    A break in the middle of a word adds a space to it, as at Postfix (`line_length_limit`): there is no other way.
    """
    if not has_long_line(field.raw):
        return field
    lines: list[bytes] = []
    for line in _BLANKS.sub(b" ", field.raw).removesuffix(b"\r\n").split(b"\r\n"):
        rest, first = line, len(field.name) + 1 if not lines else 1
        while len(rest) > LINE_MAX:
            here, more = _place(rest, first)
            lines.append(rest[:here])
            rest, first = more + rest[here:], 1
        lines.append(rest)
    return Field(field.name, b"\r\n".join(lines) + b"\r\n")


def _place(line: bytes, first: int) -> tuple[int, bytes]:
    """Return where to break, and what to put in front of the rest. No line of white space alone may come of it."""
    start = first + len(line[first:]) - len(line[first:].lstrip(b" \t"))
    here = max(line.rfind(b" ", start, _GOAL), line.rfind(b"\t", start, _GOAL))
    if here > start and line[here:].strip(b" \t"):
        return here, b""
    signs = [found.end() for found in _BETWEEN.finditer(line, start, _GOAL)]
    return (signs[-1], b" ") if signs else (_GOAL, b" ")
