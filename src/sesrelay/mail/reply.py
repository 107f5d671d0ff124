"""SMTP replies. Permanence is the first digit and stands nowhere else.

Source: RFC 5321 §4.2, RFC 3463.
"""

from __future__ import annotations

import re

from sesrelay.mail.value import value

_PARSED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\U0010ffff]+")


@value(frozen=True, slots=True)
class Reply:
    """One reply: `code` (3 digits), `enhanced` status (`2.0.0`; empty where the host gave none), `text` in one line."""

    code: int
    enhanced: str
    text: str

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def positive(self) -> bool:
        return self.code < 400

    @property
    def status(self) -> str:
        """The enhanced status code, or the general one of the reply's class (RFC 3463 §3.1)."""
        return self.enhanced or f"{self.code // 100}.0.0"

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))

    @classmethod
    def parse(cls, code: int, text: str) -> Reply:
        """Make a Reply of what a remote host said; line ends and control characters become spaces."""
        line = _UNPRINTABLE.sub(" ", text).strip()
        found = _PARSED.match(line)
        if found and int(found[1][0]) == code // 100:
            return cls(code, found[1], line[found.end() :].strip())
        return cls(code, "", line)
