"""Names without a domain in a list of addresses: where they stand, and the list with them completed.

Invariant: nothing is completed in a list of which it is not certain how everybody reads it, and where one is, every octet
stays but for the domains put in.

Source: RFC 5322 §3.4; Postfix append_at_myorigin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from sesrelay.mail.tokens import Token, tokens

# The shape of a list has a letter for each atom (a), quoted string (q) and literal (l), and each sign as it is. Every
# alternative is known by its first letters, so that a list which does not fit costs no more than a few readings.
_ONE = r"(?:[aq]*+<[aq](?:@[al])?>|[aq](?:@[al])?)?"
_ANY = rf"(?:[aq]++:{_ONE}(?:,{_ONE})*;|{_ONE})"
_LIST = re.compile(rf"{_ANY}(?:,{_ANY})*\Z")
_BARE = re.compile(r"(?<=<)[aq](?=>)|(?:^|(?<=[,:]))[aq](?=[,;]|\Z)")
_CERTAIN = re.compile(r'("?)(?!.*=\?)[A-Za-z0-9!#$%&\'*+/=?^_`{|}~-]++(?:\.[A-Za-z0-9!#$%&\'*+/=?^_`{|}~-]++)*\1\Z', re.S)
# Some addresses, each with a domain, as nearly all lists are; found at a fraction of what reading one costs.
_FULL = re.compile(
    rb"(?:[ \t\r\n,]*+(?:\"[^\"\\]*+\")?[A-Za-z0-9 \t\r\n!#$%&'*+/=?^_`{|}~.\x80-\xff-]*+"
    rb"(?:<[^\s<>,;:()\[\]\"@\\]++@[A-Za-z0-9.-]++>|@[A-Za-z0-9.-]++)[ \t]*+(?=,|\r?\n))+\r?\n\Z"
)
_LETTERS = {"atom": "a", "quoted": "q", "literal": "l"}


def possible(value: bytes) -> bool:
    """Tell whether a list of addresses, with its final line end, may hold a name without a domain."""
    return not _FULL.match(value) and not value.isspace()


def bare(found: Iterable[Token]) -> list[Token] | None:
    """Return which of the tokens of a list are names without a domain; None where the list is too odd to tell."""
    solid: list[Token] = []
    for token in found:
        if token[0] != "space":
            solid.append(token)
        elif token[1].strip(" \t\r\n"):
            return None
    shape = "".join(_LETTERS.get(kind, text) for kind, text, _ in solid)
    if not _LIST.match(shape):
        return None
    names = [solid[match.start()] for match in _BARE.finditer(shape)]
    return names if all(_CERTAIN.match(text) for _, text, _ in names) else None


def completed(value: bytes, domain: str) -> bytes:
    """Return a list of addresses with `domain` behind each name without one; as it is where it is too odd for that."""
    text = value.decode("ascii", "surrogateescape")  # one character for each octet
    found = tokens(text)
    names = None if found is None else bare(found)
    if not names:
        return value
    ends = [0, *(end for _, _, end in names), len(text)]
    return f"@{domain}".encode().join(text[start:end].encode("ascii", "surrogateescape") for start, end in pairwise(ends))


def suspected(words: Iterable[tuple[str, str]]) -> list[str]:
    """Return what may be names without a domain in a list that is too odd to tell, from its (kind, text) without spaces.

    These are all words but those up to the domain of an address, and those in front of a bracket or of a group.
    """
    names: list[str] = []
    here: list[str] = []
    at = bracketed = False
    for kind, text in (*words, ("sign", ",")):
        if text == "@":
            here, at = [], True
        elif kind != "sign":
            here += [] if at else [text]
            at = False
        elif text in ",;:<>":
            if bracketed or text not in "<:":
                names += here
            here, at, bracketed = [], False, text == "<" or (bracketed and text == ":")
    return names
