"""Addresses out of address lists as people and programs write them: names, comments, quotes, groups, routes.

Invariant: nothing is dropped in silence: what is no address comes out as it stands, and `sound` says no to it.

Source: RFC 5322 §3.4, §4.4 (obsolete forms).
"""

_CLOSING = {'"': '"', "[": "]"}


def parse(text: str) -> list[str]:
    """Return the addresses in `text`, one unfolded line, in order, without names and comments; bare names stay bare."""
    if "\r" in text or "\n" in text:
        return [text]
    found: list[str] = []
    outside: list[str] = []  # what stands outside angle brackets: a name, or an address alone
    inside: list[str] | None = None
    within = False
    at, end = 0, len(text)
    while at < end:
        letter = text[at]
        if letter == "(":
            at = _comment_end(text, at)
            outside.append(" ")
            continue
        if letter in _CLOSING:
            stop = _quoted_end(text, at, _CLOSING[letter])
            (inside if within and inside is not None else outside).append(text[at:stop])
            at = stop
            continue
        at += 1
        if within and inside is not None:
            if letter == ">":
                within = False
                if inside or "@" not in outside:
                    outside = []  # what stood before was the name; before <>, it may be the address
            elif inside or not letter.isspace():  # a blank alone is no address
                inside.append(letter)
        elif letter == "<":
            if inside is not None:  # a comma was forgotten
                _add(found, [], inside)
            inside, within = [], True
        elif letter in ",;":
            _add(found, outside, inside)
            outside, inside = [], None
        elif letter == ":" and "@" not in outside:
            outside = []  # it was the name of a group
        else:
            outside.append(letter)
    _add(found, [] if within and inside else outside, inside)
    return found


def sound(address: str) -> bool:
    """Tell whether `address` can stand between < and > of an SMTP command; the relay judges the rest."""
    bare, quoted, escaped = True, False, False
    for letter in address:
        if not letter.isprintable():  # surrogates too: octets that are no UTF-8
            return False
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == '"':
            quoted = not quoted
        elif not quoted and (letter in " <>()," or letter.isspace()):
            return False
        bare = False
    return not (bare or quoted or escaped)


def xtext(text: str) -> str:
    """Return `text` as a parameter of MAIL can carry it (RFC 3461 §4)."""
    return "".join(letter if "!" <= letter <= "~" and letter not in "+=" else f"+{ord(letter):02X}" for letter in text)


def _add(found: list[str], outside: list[str], inside: list[str] | None) -> None:
    if inside is not None and "@" in outside:  # <a@b> c@d: a comma was forgotten
        _add(found, [], inside)
        inside = None
    address = "".join(outside if inside is None else inside).strip()
    if inside is not None and address.startswith("@") and ":" in address:
        address = address.partition(":")[2]  # a source route
    if not address:
        return
    if any(letter.isspace() for letter in address):
        words = _closed_up(address)
        # Between two whole addresses a space stands for a comma, as for Postfix and sendmail.
        several = inside is None and all("@" in word.rpartition('"')[2] for word in words)
        found += words if several else [" ".join(words)]
        return
    found.append(address)


def _closed_up(address: str) -> list[str]:
    """Return the words of `address`, without the spaces around dots and at signs outside quotes, which RFC 822 allowed."""
    words: list[str] = []
    made: list[str] = []
    at = 0
    while at < len(address):
        letter = address[at]
        if letter == '"':
            stop = _quoted_end(address, at, '"')
            made.append(address[at:stop])
            at = stop
            continue
        at += 1
        if letter.isspace():
            while address[at].isspace():  # the address ends with a letter
                at += 1
            if address[at] in "@." or (made and made[-1] in "@."):
                continue
            words.append("".join(made))
            made = []
            continue
        made.append(letter)
    return [*words, "".join(made)]


def _quoted_end(text: str, at: int, closing: str) -> int:
    """Return where what opens at `at` is closed: behind the closing character, or the end of the text."""
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == closing:
            return at + 1
        else:
            at += 1
    return len(text)


def _comment_end(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return len(text)
