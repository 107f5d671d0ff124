"""The original recipient, as DSN carries it: `type;address` with the address encoded.

Invariant: what is made here is printable ASCII, so that it may be said to any host that has DSN.

Source: RFC 3461 §4 (xtext), §4.2 (ORCPT); RFC 6533 §3 (`utf-8`, for addresses that are not ASCII).
"""

from __future__ import annotations

import re
import unicodedata

UTF8 = "utf-8"

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_NEARLY = re.compile(r"\+[0-7][0-9A-Fa-f]|[+=]")
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]+)\}")


def made(address: str) -> str:
    """Return the ORCPT that says `address`."""
    if not address.isascii():
        return f"{UTF8};{escaped(address)}"
    return "rfc822;" + "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in address)


def as_ascii(orcpt: str) -> str:
    """Return `orcpt` as a host without SMTPUTF8, or a transaction that does not say so, may have it: in 7 bits."""
    if orcpt.isascii():
        return orcpt
    address = orcpt.partition(";")[2]
    return f"{UTF8};" + "".join(c if c.isascii() else _code_point(c) for c in address)


def escaped(address: str) -> str:
    """Return `address` as utf-8-addr-xtext: printable ASCII without `+`, `=` and `\\`, and the rest by its code point."""
    return "".join(c if "!" <= c <= "~" and c not in "+=\\" else _code_point(c) for c in address)


def unescaped(text: str) -> str:
    """Return what utf-8-addr-xtext or -unitext stands for; U+FFFD for what is no character."""
    return _UNITEXT.sub(lambda found: _character(found[1]), text)


def mended(text: str) -> str:
    """Return as xtext what is nearly that: digits in lower case, `=` as it is, a `+` before no digits, or none of ASCII.

    Postfix takes the first two; the others are what a program sends that does not know of xtext, `rfc822;me+facebook@example.org`.
    """
    return _NEARLY.sub(lambda found: found[0].upper() if found[0][1:] else f"+{ord(found[0]):02X}", text)


def decoded(xtext: str) -> str:
    """Return what `xtext` stands for."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), xtext)


def printable(text: str) -> bool:
    """Tell whether decoded ASCII has nothing but graphic characters and blanks (RFC 3461 §4.2, §4.4)."""
    return all(" " <= c <= "~" for c in text)


def printable_utf8(text: str) -> bool:
    """Tell whether a decoded address is free of control characters, line ends, and what is no character."""
    return not any(c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _code_point(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"


def _character(digits: str) -> str:
    code = int(digits, 16) if len(digits.lstrip("0")) <= 6 else 0x110000
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else "\ufffd"
