"""The header: recipients out of it for -t, Bcc off, and what only the program can add: who sends, and when.

Invariant: the fields that stay are passed on octet for octet, and so is the body.

Source: RFC 5322 §3.6; RFC 2047 §5 (names in phrases); sendmail(1) of Postfix (-t, -F, resent messages).
"""

# ruff: noqa: PLC0415 - a module is loaded by the runs that want it

from sesrelay.sendmail.addresses import parse

_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_LINE_MAX = 998  # octets (RFC 5322 §2.1.1): no name of a field is longer
_PRIVATE = (b"bcc", b"resent-bcc")


class Header:
    """The fields of a message, each with its folding and final CR LF, and what follows them."""

    __slots__ = ("_end", "_message", "envelope_line", "fields")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.fields: list[tuple[bytes, bytes]] = []  # lower-case name, whole field
        at = _envelope_end(message)
        self.envelope_line = message[:at]  # of an mbox; the relay takes it off
        while name := _name(message, at):
            end = message.find(b"\r\n", at) + 2
            while message[end : end + 1] in (b" ", b"\t"):
                end = message.find(b"\r\n", end) + 2
                if end < 2:
                    end = len(message)
            self.fields.append((name.lower(), message[at:end]))
            at = end
        self._end = at

    @property
    def complete(self) -> bool:
        """The header ends within what was given: a whole line follows that is no field, or what can be none."""
        rest = self._message[self._end :]
        name, colon, _ = rest.partition(b":")
        return b"\r\n" in rest or (not _is_name(name.rstrip(b" \t")) if colon else len(rest) > _LINE_MAX)

    def recipients(self) -> list[str]:
        """Return whom the header names; of a resent message, whom it was resent to."""
        names = _RESENT if any(name in _RESENT for name, _ in self.fields) else _RECIPIENTS
        found: list[str] = []
        for name, field in self.fields:
            if name in names:
                value = field.partition(b":")[2].replace(b"\r\n", b"")
                found += parse(value.decode("utf-8", "surrogateescape"))
        return found

    def has(self, name: bytes) -> bool:
        """Tell whether there is a field of that name, given in lower case."""
        return any(each == name for each, _ in self.fields)

    def drop_private(self) -> None:
        """Take out Bcc and Resent-Bcc."""
        self.fields = [(name, field) for name, field in self.fields if name not in _PRIVATE]

    def add(self, name: str, value: str) -> None:
        """Put a field behind the others."""
        self.fields.append((name.lower().encode(), f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")))

    def joined(self) -> bytes:
        """Return the message with the fields as they are now."""
        rest = self._message[self._end :]
        between = b"" if rest.startswith(b"\r\n") else b"\r\n"
        return b"".join([self.envelope_line, *(field for _, field in self.fields), between, rest])


def mailbox(name: str, address: str) -> str:
    """Return `address` with a display name, as a field wants it."""
    name = "".join(letter if letter.isprintable() else " " for letter in name).strip()
    if not name:
        return address
    if not name.isascii():
        return f"{_encoded(name)} <{address}>"
    if all(letter.isalnum() or letter in "-_ " for letter in name):
        return f"{name} <{address}>"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>'


def _encoded(name: str) -> str:
    from binascii import b2a_base64

    words: list[str] = []
    text = ""
    for letter in [*name, ""]:
        # An encoded word has at most 75 octets, and whole characters.
        if not letter or len((text + letter).encode("utf-8", "replace")) > 45:
            coded = b2a_base64(text.encode("utf-8", "replace"), newline=False).decode()
            words.append(f"=?utf-8?B?{coded}?=")
            text = ""
        text += letter
    return "\r\n ".join(words)


def _envelope_end(message: bytes) -> int:
    """Return where the lines of an mbox on top end; without a header behind them they are text, which may begin like that."""
    at = 0
    for _ in range(9):  # as many as the relay takes off
        if not _is_envelope_line(message, at):
            break
        at = message.find(b"\r\n", at) + 2
    return at if _name(message, at) else 0


def _is_envelope_line(message: bytes, at: int) -> bool:
    """Tell whether a line begins as in an mbox; `From :` is a field, as of old (RFC 5322 §4.5)."""
    end = message.find(b"\r\n", at)
    line = message[at : max(end, at)].lstrip(b">")
    return line.startswith(b"From ") and not line[5:].lstrip(b" \t").startswith(b":")


def _name(message: bytes, at: int) -> bytes:
    """Return the name of the field that begins there; empty where none does, or its first line has no end."""
    end = message.find(b"\r\n", at)
    name, colon, _ = message[at : max(end, at)].partition(b":")
    name = name.rstrip(b" \t")
    return name if colon and _is_name(name) else b""


def _is_name(name: bytes) -> bool:
    return bool(name) and all(33 <= octet <= 126 for octet in name)
