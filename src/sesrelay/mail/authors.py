"""Every address that some reader might take for the author of a message: the header From, read with suspicion.

Mail programs differ in what they make of a malformed From (an address in front of the bracketed one, an unclosed quote,
obsolete routes). Who guards a domain has to think of all of them.

Source: RFC 5322 §3.4, §4.4 (obsolete addressing); RFC 2047 §5.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from sesrelay.mail.headers import unfold

_FROM = re.compile(rb"^from[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)", re.I | re.M)
_SIMPLE = re.compile(
    r"(?:[\w !#$%&'*+/=?^`{|}~.-]*<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+)>"
    r"|([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+))\Z"
)
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]++|\\.)*")|(?P<literal>\[[^\[\]]*+\])|(?P<atom>[^\s<>,;:()\[\]"@\\]++)|(?P<space>\s++)|(?P<sign>.)""",
    re.S,
)
_IN_COMMENT = re.compile(r"[^()\\]++|\\.|.", re.S)
_NOTHING_QUOTED = str.maketrans(dict.fromkeys('"()\\', " "))

Token = tuple[str, str]  # its kind, as in _TOKEN, and its text


def authors(head: bytes) -> tuple[str, ...]:
    """Return every address that the From fields of `head` may be read to name, in order, some of them malformed."""
    found: list[str] = []
    for each in _FROM.finditer(head):
        text = unfold(each[1])
        simple = _SIMPLE.match(text)
        if simple:
            found.append(simple[1] or simple[2])
            continue
        here = _scan(text)
        if not here and "=?" in text:
            here = _scan(_decoded(text))
        found += here
    return tuple(dict.fromkeys(found))


def _scan(text: str) -> list[str]:
    """Return what stands around each @ outside of quotes and comments."""
    tokens = _tokens(text)
    if tokens is None:
        # Where quotes or comments end is anybody's guess: then nothing is quoted.
        tokens = _tokens(text.translate(_NOTHING_QUOTED)) or []
    words = _joined(tokens)
    found: list[str] = []
    for n, (_, sign) in enumerate(words):
        if sign == "@":
            before, after = words[n - 1] if n else ("sign", ""), words[n + 1] if n + 1 < len(words) else ("sign", "")
            local = before[1] if before[0] in ("atom", "quoted") else ""
            found.append(f"{local}@{after[1] if after[0] in ('atom', 'literal') else ''}")
    return found


def _tokens(text: str) -> list[Token] | None:
    """Return the tokens of `text` without its comments, or None where a quote or a comment has no end."""
    tokens: list[Token] = []
    depth = at = 0
    while at < len(text):
        found = (_IN_COMMENT if depth else _TOKEN).match(text, at)
        assert found is not None
        at = found.end()
        if found[0] in ("(", ")"):
            depth += 1 if found[0] == "(" else -1
        elif not depth:
            tokens.append((found.lastgroup or "", found[0]))
        if depth < 0 or (not depth and found[0] in ('"', "\\")):
            return None
    return None if depth else tokens


def _joined(tokens: list[Token]) -> list[Token]:
    """Return the tokens without space; atoms are one where nothing, or space beside a dot, parts them."""
    words: list[Token] = []
    spaced = False
    for kind, text in tokens:
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
