"""Line ends: only CR LF ends a line in what we store and send.

Invariant: what `canonical` returns holds no bare CR, no bare LF and no NUL, so nothing that leaves can end a
message early at a host which takes other line ends for real (outbound smuggling).

Source: RFC 5321 §2.3.8; Postfix `cleanup_replace_stray_cr_lf` (3.9).
"""

from __future__ import annotations

from typing import NewType

Canonical = NewType("Canonical", bytes)
"""Content that `canonical` has passed, or that is made of such: nobody needs to look again before it leaves."""

BARE_CR = "bare CR became a space"
BARE_LF = "bare LF became CRLF"
NUL = "NUL became a space"

_DOTTED = b"\r\n."
_FEW_DOTS = 64  # as a header may have
_LARGE = 16 * 1024  # octets


def mended(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a piece of content that no CRLF is cut by, with CRLF line ends only, and receipts of what was changed.

    A bare LF becomes CRLF: it came from a Unix text. A bare CR or a NUL becomes a space, as in Postfix.
    """
    receipts: list[str] = []
    # To count the pairs and delete each of their octets takes less time than to delete the pairs, and much less than an expression.
    paired = len(content) - content.count(b"\r\n")
    cr, lf = (len(content.replace(octet, b"")) < paired for octet in (b"\r", b"\n"))
    if cr or lf:
        # No substitution by expression: its matches, one for each octet of an empty line, would need many times the memory.
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        receipts += [BARE_CR] * cr + [BARE_LF] * lf
    if b"\0" in content:
        content = content.replace(b"\0", b" ")
        receipts.append(NUL)
    return content, tuple(receipts)


def dotted(content: bytes) -> int:
    """Return where the first line end is that has a dot behind it, or -1: what stuffing is about.

    What is large has few dots, or many: one octet is found many times faster than three, so a few dots are looked at by themselves.
    """
    at = 1
    for _ in range(_FEW_DOTS if len(content) > _LARGE else 0):
        at = content.find(b".", at + 1)
        if at < 0 or content.startswith(_DOTTED, at - 2):
            return max(at - 2, -1)
    return content.find(_DOTTED, at - 1)


def canonical(content: bytes) -> tuple[Canonical, tuple[str, ...]]:
    """Return content with CRLF line ends only, and one at its end; and receipts of what was changed. See `mended`."""
    content, receipts = mended(content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return Canonical(content), receipts
