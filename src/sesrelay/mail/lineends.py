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


def mended(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a piece of content that no CRLF is cut by, with CRLF line ends only, and receipts of what was changed.

    A bare LF becomes CRLF: it came from a Unix text. A bare CR or a NUL becomes a space, as in Postfix.
    """
    receipts: list[str] = []
    strays = content.replace(b"\r\n", b"")  # a copy takes half the time of an expression that looks at each line end
    cr, lf = b"\r" in strays, b"\n" in strays
    if cr or lf:
        # No substitution by expression: its matches, one for each octet of an empty line, would need many times the memory.
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        receipts += [BARE_CR] * cr + [BARE_LF] * lf
    if b"\0" in content:
        content = content.replace(b"\0", b" ")
        receipts.append(NUL)
    return content, tuple(receipts)


def canonical(content: bytes) -> tuple[Canonical, tuple[str, ...]]:
    """Return content with CRLF line ends only, and one at its end; and receipts of what was changed. See `mended`."""
    content, receipts = mended(content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return Canonical(content), receipts
