"""Every address that some reader might take for the author of a message: the header From, read with suspicion.

Mail programs differ in what they make of a malformed From (an address in front of the bracketed one, an unclosed quote,
obsolete routes), and a relay further on may complete a name without a domain. Who guards a domain has to think of all of them.

Source: RFC 5322 §3.4, §4.4 (obsolete addressing); RFC 2047 §5.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header

from sesrelay.mail.address import DOMAIN_MAX
from sesrelay.mail.bare import bare, possible, suspected
from sesrelay.mail.headers import unfold
from sesrelay.mail.tokens import Token, tokens

_FROM = re.compile(rb"^from[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)", re.I | re.M)
_SIMPLE = re.compile(
    r"(?:[\w !#$%&'*+/=?^`{|}~.-]*<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+)>"
    r"|((?!.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+))\Z"
)
_NOTHING_QUOTED = str.maketrans(dict.fromkeys('"()\\', " "))
_WITHOUT_MARKS = str.maketrans(dict.fromkeys('"()\\', ""))
_ENCODED = re.compile(r"=\?[^?]*+\?[bqBQ]\?")  # how a word begins, as laxly as the standard library reads it; it ends by ?=
_BETWEEN = re.compile(r"(?<=\?=)\s++(?==\?)")  # no part of what is encoded (RFC 2047 §6.2)
_PLAIN_HOST = re.compile(r"[A-Za-z0-9.-]+\.[A-Za-z0-9-]+")

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
        for reading in _decoded(text) if "=?" in text and not _scan(text) else [text]:
            found += _scan(reading, wanted)
        for member, addressed in _members(text):
            if "=?" in member or '"' in member or ("(" in member and not addressed):
                for reading in _decoded(member):
                    found += _scan(reading if addressed else reading.translate(_NOTHING_QUOTED))
    return tuple(dict.fromkeys(found))


def _scan(text: str, domain: str = "") -> list[str]:
    """Return what stands around each @ outside of quotes and comments, and the names without one, completed by `domain`."""
    found = tokens(text)
    if found is not None:
        return _named(found, bare(found) if domain else None, domain)
    # Where quotes or comments end is anybody's guess: then nothing is quoted, and what is in parentheses stands there or does
    # not, and the marks are a space or nothing.
    texts = (text, _uncommented(text, ""), _uncommented(text, " "))
    readings = [each.translate(marks) for each in texts for marks in (_NOTHING_QUOTED, _WITHOUT_MARKS)]
    return [address for reading in readings for address in _named(tokens(reading) or [], None, domain)]


def _named(found: list[Token], certain: list[Token] | None, domain: str) -> list[str]:
    """Return the addresses in `found`; `certain`: which of them are names without a domain, where that can be told."""
    words = _joined(found)
    addresses = []
    for n, (_, sign) in enumerate(words):
        if sign == "@":
            before, after = words[n - 1] if n else ("sign", ""), words[n + 1] if n + 1 < len(words) else ("sign", "")
            locals_ = _locals(before[1]) if before[0] == "atom" else [before[1] if before[0] == "quoted" else ""]
            hosts = _hosts(after[1]) if after[0] == "atom" else [after[1] if after[0] == "literal" else ""]
            addresses += [f"{local}@{host}" for local in locals_ for host in hosts]
    if domain:
        solid = ((kind, text.replace(" ", "") if kind == "atom" else text) for kind, text in words)
        names = suspected(solid) if certain is None else [name for _, name, _ in certain]
        addresses += [f"{name}@{domain}" for name in names]
    return addresses


def _locals(atom: str) -> list[str]:
    """Return the local parts that what is joined over spaces may be: all of it, or what has come since the last of them."""
    return list(dict.fromkeys((atom.replace(" ", ""), atom.rpartition(" ")[2])))


def _hosts(atom: str) -> list[str]:
    """Return the domains that what is joined over spaces may be: all of it, or what has come up to one of them.

    Some readers see a domain end where its ASCII does.
    """
    hosts = [atom.replace(" ", "")]
    if not atom.isascii() and (plain := _PLAIN_HOST.match(atom)):
        hosts.append(plain[0])
    at = atom.find(" ")
    while 0 < at < 2 * DOMAIN_MAX:
        host = atom[:at].replace(" ", "")
        if "." in host[1:-1]:  # else nobody would take it for one
            hosts.append(host)
        at = atom.find(" ", at + 1)
    return hosts


def _members(text: str) -> list[tuple[str, bool]]:
    """Return the members of a list, without the name of one that has an address in brackets, and whether there is an @ in them.

    To some readers what is encoded in such a one is its address, or, where it has none, what is quoted or a comment.
    """
    found = tokens(text)
    if found is None:
        return [(member, False) for member in re.split("[,;]", text)]
    members: list[tuple[str, bool]] = []
    begins, signs = 0, ""
    opens: int | None = None
    for kind, sign, end in (*found, ("sign", ",", len(text) + 1)):
        if kind == "sign":
            signs += sign
        if sign in (",", ";"):
            named = "@" in signs and signs.lstrip(":").startswith("<")
            members.append((text[opens if named else begins : end - 1], "@" in signs))
            begins, signs, opens = end, "", None
        elif sign == "<" and opens is None:
            opens = end - 1
    return members


def _uncommented(text: str, instead: str) -> str:
    """Return `text` with `instead` of what stands between parentheses that belong together."""
    kept: list[str] = []
    opened: list[int] = []
    for letter in text:
        if letter == ")" and opened:
            kept[opened.pop() :] = instead
            continue
        if letter == "(":
            opened.append(len(kept))
        kept.append(letter)
    return "".join(kept)


def _joined(found: list[Token]) -> list[Word]:
    """Return the tokens without space; atoms are one where nothing parts them, or a comment, or space beside a dot.

    Of the latter two a space is kept.
    """
    words: list[Word] = []
    spaced = parted = False
    for kind, text, _ in found:
        if kind == "space":
            spaced, parted = True, parted or bool(text)
            continue
        last_kind, last = words[-1] if words else ("", "")
        if kind == last_kind == "atom" and (not parted or text.startswith(".") or last.endswith(".")):
            words[-1] = ("atom", f"{last} {text}" if spaced else last + text)
        else:
            words.append((kind, text))
        spaced = parted = False
    return words


def _decoded(text: str) -> list[str]:
    """Return `text` with each encoded word in it decoded by itself: as part of what is beside it, and apart, as some readers do."""
    return [_words_decoded(_BETWEEN.sub("", text), ""), _words_decoded(text, " ")]


def _words_decoded(text: str, around: str) -> str:
    parts: list[str] = []
    at = 0
    while (begins := _ENCODED.search(text, at)) and (ends := text.find("?=", begins.end()) + 2) > 1:
        parts += (text[at : begins.start()], around, _word_decoded(text[begins.start() : ends]), around)
        at = ends
    return "".join((*parts, text[at:]))


def _word_decoded(word: str) -> str:
    try:
        parts: list[tuple[str | bytes, str | None]] = decode_header(word)
    except (HeaderParseError, ValueError):
        return word
    return "".join(part if isinstance(part, str) else _text(part, charset or "") for part, charset in parts)


def _text(octets: bytes, charset: str) -> str:
    """Return what `octets` say; a charset may have a language behind it (RFC 2231 §5), and be unknown here and known elsewhere."""
    try:
        return octets.decode(charset.partition("*")[0], "replace")
    except (LookupError, ValueError):
        return octets.decode("latin-1")
