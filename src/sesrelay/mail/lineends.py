"""Line ends: only CR LF ends a line in what we store and send.

Invariant: what `canonical` returns holds no bare CR, no bare LF and no NUL, so nothing that leaves can end a
message early at a host which takes other line ends for real (outbound smuggling).

Source: RFC 5321 §2.3.8; Postfix `cleanup_replace_stray_cr_lf` (3.9).
"""

from __future__ import annotations

import re

_BARE_LF = re.compile(rb"(?<!\r)\n")
_BARE_CR = re.compile(rb"\r(?!\n)")


def canonical(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return `content` with CRLF line ends only, and receipts of what was changed.

    A bare LF becomes CRLF: it came from a Unix text. A bare CR or a NUL becomes a space, as in Postfix.
    """
    pairs = content.count(b"\r\n")
    receipts: list[str] = []
    if content.count(b"\r") != pairs:
        content = _BARE_CR.sub(b" ", content)
        receipts.append("bare CR became a space")
    if content.count(b"\n") != pairs:
        content = _BARE_LF.sub(b"\r\n", content)
        receipts.append("bare LF became CRLF")
    if b"\0" in content:
        content = content.replace(b"\0", b" ")
        receipts.append("NUL became a space")
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content, tuple(receipts)
