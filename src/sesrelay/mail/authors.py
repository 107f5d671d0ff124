"""Every address that some reader might take for the author of a message: the header From, read with suspicion.

Mail programs differ in what they make of a malformed From (an address in front of the bracketed one, an unclosed quote,
obsolete routes), and a relay further on may complete a name without a domain. Who guards a domain has to think of all of them.

Source: RFC 5322 §3.4, §4.4 (obsolete addressing); RFC 2047 §5.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from sesrelay.mail.bare import bare, possible, suspected
from sesrelay.mail.headers import unfold
from sesrelay.mail.tokens import Token, tokens

_FROM = re.compile(rb"^from[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)", re.I | re.M)
_SIMPLE = re.compile(
    r"(?:[\w !#$%&'*+/=?^`{|}~.-]*<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+)>"
    r"|([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+))\Z"
)
_NOTHING_QUOTED = str.maketrans(dict.fromkeys('"()\\', " "))

Word = tuple[str, str]  # its kind, as of a token, and its text


def authors(head: bytes, domain: str = "") -> tuple[str, ...]:
    """Return every address that the From fields of `head` may be read to name, in order, some of them malformed.

    `domain`: what a later hop may complete a name without one by; empty: such names are no authors.
    """
    found: list[str] = []
    for each in _FROM.finditer(head):
        text = unfold(each[1])
        simple = _SIMPLE.match(text)
        if simple:
            found.append(simple[1] or simple[2])
            continue
        wanted = domain if possible(each[1]) else ""
        here = _scan(text, wanted)
        if "=?" in text and not _scan(text):
            here = _scan(_decoded(text), wanted)
        found += here
    return tuple(dict.fromkeys(found))


def _scan(text: str, domain: str = "") -> list[str]:
    """Return what stands around each @ outside of quotes and comments, and the names without one, completed by `domain`."""
    found = tokens(text)
    certain = bare(found) if domain and found is not None else None
    if found is None:
        # Where quotes or comments end is anybody's guess: then nothing is quoted.
        found = tokens(text.translate(_NOTHING_QUOTED)) or []
    words = _joined(found)
    addresses: list[str] = []
    for n, (_, sign) in enumerate(words):
        if sign == "@":
            before, after = words[n - 1] if n else ("sign", ""), words[n + 1] if n + 1 < len(words) else ("sign", "")
            local = before[1] if before[0] in ("atom", "quoted") else ""
            addresses.append(f"{local}@{after[1] if after[0] in ('atom', 'literal') else ''}")
    if domain:
        names = suspected(words) if certain is None else [name for _, name, _ in certain]
        addresses += [f"{name}@{domain}" for name in names]
    return addresses


def _joined(found: list[Token]) -> list[Word]:
    """Return the tokens without space; atoms are one where nothing, or space beside a dot, parts them."""
    words: list[Word] = []
    spaced = False
    for kind, text, _ in found:
        if kind == "space":
            spaced = True
            continue
        last_kind, last = words[-1] if words else ("", "")
        if kind == last_kind == "atom" and (not spaced or text.startswith(".") or last.endswith(".")):
            words[-1] = ("atom", last + text)
        else:
            words.append((kind, text))
        spaced = False
    return words


def _decoded(text: str) -> str:
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text
