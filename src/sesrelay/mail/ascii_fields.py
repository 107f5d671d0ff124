"""Header fields for hosts that take ASCII only: encoded words, A-labels, extended parameters.

Invariant: a field that is ASCII already is returned as it is.

Source: RFC 2047; RFC 2231 §4 (parameters); RFC 5891 (A-labels); RFC 6857 (what becomes of internationalized fields).
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header
from email.utils import formataddr
from urllib.parse import quote

from sesrelay.mail.address import AddressError, domain_key, split
from sesrelay.mail.headers import Field, addresses
from sesrelay.mail.mailboxes import mailboxes

_ADDRESSED_NAMES = """
    reply-to from sender to cc bcc resent-from resent-sender resent-to resent-cc resent-bcc return-receipt-to
    disposition-notification-to errors-to x-original-from x-original-sender
"""
_ADDRESSED = frozenset(_ADDRESSED_NAMES.split())
_PARAMETERS = frozenset({"content-type", "content-disposition"})
_TEXTLESS_NAMES = """
    message-id in-reply-to references content-id received resent-message-id dkim-signature mime-version content-transfer-encoding
"""
_TEXTLESS = frozenset(_TEXTLESS_NAMES.split())  # where no encoded word means anything
_LISTS_NAMES = "list-id list-help list-unsubscribe list-subscribe list-post list-owner list-archive archived-at"
_LISTS = frozenset(_LISTS_NAMES.split())
_ANGLED = re.compile(r"(<[^<>]*>)")
_PARAMETER = re.compile(r';\s*([!#$&*+.^_`|~A-Za-z0-9-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_BLANKS = re.compile("[\t-\r\x1c-\x20\x85\u2028\u2029]+")  # what ends a line to the library too; others are text
_QUOTED_PAIR = re.compile(r"\\(.)", re.S)
_WORD = r"=\?[^?\s]+\?[bqBQ]\?[^?\s]*\?="
# Blanks between such words do not count. The library takes quadratic time over a run of them.
_ENCODED = re.compile(rf"(?<!\S){_WORD}(?: +{_WORD}){{0,99}}(?!\S)")
_HIGH = re.compile(r"[^\x00-\x7f]+")


class NotAscii(Exception):
    """A field that ASCII cannot carry: the local part of an address. `address` is the one."""

    def __init__(self, field: str, address: str) -> None:
        super().__init__(f"{field} has the address {address}, whose local part is not ASCII")
        self.field, self.address = field, address


def ascii_field(field: Field) -> Field:
    """Return `field` in ASCII. Raises: NotAscii"""
    if field.raw.isascii():
        return field
    value = _text(field.raw.partition(b":")[2])
    if field.key in _ADDRESSED:
        made = _addresses(field.name, value)
    elif field.key in _PARAMETERS:
        made = _HIGH.sub("?", _parameters(value))
    elif field.key in _LISTS:
        made = _angled(value)
    elif field.key in _TEXTLESS:
        made = _HIGH.sub("?", value)
    else:
        made = _words(value, field.name)
    return Field(field.name, f"{field.name}: {made}\r\n".encode("ascii"))


def ascii_address(address: str) -> str | None:
    """Return `address` with its domain in A-labels, or None where ASCII cannot carry its local part."""
    if address.isascii():
        return address
    local, domain = split(address)
    if not local.isascii():
        return None
    try:
        return f"{local}@{domain_key(domain)}"
    except AddressError:
        return None


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("cp1252", "replace")
    return _BLANKS.sub(" ", text).strip(" ")


def _words(text: str, name: str = "") -> str:
    text = _ENCODED.sub(_plain, text)  # else what is encoded already would be shown as it stands
    return Header(text, "utf-8", header_name=name or None, maxlinelen=75).encode(linesep="\r\n")


def _plain(found: re.Match[str]) -> str:
    try:
        return _BLANKS.sub(" ", str(make_header(decode_header(found[0]))))
    except (HeaderParseError, LookupError, ValueError):
        return found[0]


def _addresses(name: str, value: str) -> str:
    found = mailboxes([value])
    if not found or not addresses([value]):
        return _words(value, name)
    made = []
    for display, address in found:
        if not address:
            continue
        plain = ascii_address(address)
        if plain is None:
            raise NotAscii(name, address)
        made.append(formataddr((display, plain)) if display.isascii() else f"{_words(display)} <{plain}>")
    return ",\r\n ".join(made)


def _angled(value: str) -> str:
    """Return a value in which programs look for what is in angle brackets: a URL, or a list's id."""
    parts = [
        part if part.isascii() else _HIGH.sub(_percent, part) if part[0] == "<" else _phrase(part) for part in _ANGLED.split(value)
    ]
    return "".join(parts).strip()


def _percent(found: re.Match[str]) -> str:
    return quote(found[0])


def _phrase(text: str) -> str:
    return f" {_words(text.strip())} "


def _parameters(value: str) -> str:
    starred = {name.lower() for name, star, _ in (found[1].partition("*") for found in _PARAMETER.finditer(value)) if star}

    def extended(found: re.Match[str]) -> str:
        name, text = found[1], _QUOTED_PAIR.sub(r"\1", found[2]) if found[2] is not None else found[3]
        if text.isascii() or "*" in name:
            return found[0]
        if name.lower() in starred:
            return ""  # it stands there in ASCII too, and a second one would be read as more of it
        return f";\r\n {name}*=utf-8''{quote(text, safe='')}"

    return _PARAMETER.sub(extended, value)
