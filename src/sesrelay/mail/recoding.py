"""Encoding content anew for hosts that cannot take it as it is: lines too long, 8-bit that nobody declared, or any 8-bit.

It goes part by part: what needs nothing keeps its octets, and what is inside multipart/signed or multipart/encrypted is
never changed. Decoded, every part is what it was.

Invariant: what is returned has no line over 998 octets, no 8-bit header field and no undeclared 8-bit body (with
`seven_bit`: no 8-bit at all), and is returned as it is when it is given again. Three things stay all the same, as hosts take them:
a forwarded message whose part declares it as 8-bit, header and all; in one that is not so declared, an address that ASCII
cannot carry, since no host routes by it; and 8-bit in a part that cannot be encoded, because its encoding is not known or its
own parts are not found. For the latter two there is a receipt.

Source: RFC 2045 §6 (encodings), §6.4 (none for composite types); RFC 6532 §3.7, RFC 6533 §6 (but for message/global and its
kin); RFC 1847 (signed, encrypted); RFC 1428 (unknown-8bit); RFC 6152 §3 (8-bit to 7-bit conversion).
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from sesrelay.mail import headers, mime
from sesrelay.mail.ascii_fields import NotAscii, ascii_field
from sesrelay.mail.folding import NAME_MAX, folded
from sesrelay.mail.headers import Field
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.mime import Kind, has_long_line

LEFT = "left as it is"
"""How a receipt begins of what was not changed, though it had better be."""

_HIGH = bytes(range(128, 256))
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_HIGH_OCTET = re.compile(rb"[\x80-\xff]")
_QUOTED_RUN = re.compile(rb"(?:=[0-9A-Fa-f]{2}|.){1,25}", re.S)  # at most 75 octets
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_ENCODED = frozenset({"base64", "quoted-printable"})
_GLOBAL = "message/global"  # and -headers, -delivery-status, -disposition-notification


@dataclass(frozen=True, slots=True)
class Recoded:
    """`fields`: keys of the top header's fields that changed; `body`: something behind that header did."""

    content: Canonical
    changes: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()
    body: bool = False


@dataclass(frozen=True, slots=True)
class Stuck:
    """It can neither go as it is nor be encoded; `why` says so for the sender. `address`: the cause is an address."""

    why: str
    address: bool = False


class _Stuck(Exception):
    pass


def fits(content: bytes) -> bool:
    """Tell at the speed of memory whether there is certainly nothing to do: declared 8-bit wants a closer look."""
    return content.isascii() and not has_long_line(content)


def recoded(content: Canonical, *, seven_bit: bool = False) -> Recoded | Stuck:
    """Return `content` as such a host takes it, and a receipt of each change. Takes seconds for very large content."""
    if fits(content):
        return Recoded(content)
    work = _Work(seven_bit)
    try:
        made = work.entity(content, (), "text/plain")
    except NotAscii as error:
        return Stuck(str(error), address=True)
    except _Stuck as error:
        return Stuck(str(error))
    return Recoded(Canonical(made), tuple(work.receipts), frozenset(work.fields), work.body)


class _Work:
    """`covered`: it is within a message whose part declares 8-bit, header fields included. `wrapped`: within one that may be
    encoded as a whole.
    """

    def __init__(self, seven_bit: bool, receipts: list[str] | None = None, *, covered: bool = False, wrapped: bool = False) -> None:
        self.receipts: list[str] = [] if receipts is None else receipts
        self.fields: set[str] = set()
        self.body = False
        self._seven_bit = seven_bit
        self._covered = covered
        self._wrapped = wrapped

    def _fits(self, content: bytes) -> bool:
        return not has_long_line(content) if self._covered else fits(content)

    def entity(self, content: bytes, path: tuple[int, ...], default: str) -> bytes:
        """Return an entity anew, `path` its place: (1, 2) is the second part of the first."""
        if self._fits(content):
            return content
        if len(path) > mime.DEPTH_MAX:
            raise _Stuck(f"its MIME parts are nested more than {mime.DEPTH_MAX} deep")
        head, gap, body = mime.cut(content)
        fields = headers.fields(head)
        kind = mime.kind(fields, default)
        made, named = self._composite(body, kind, path)
        if made is None:
            made, named = self._leaf(body, kind, path)
        if made != body:
            self.body = True
            fields = self._declared(fields, kind, named, path)
        fields = [self._field(field, path) for field in fields]
        changed = b"".join(field.raw for field in fields)
        if not gap and made and changed != head:
            gap = b"\r\n"  # a body that began without the empty line would become part of the header
        return changed + gap + made

    # --- composite types ---

    def _composite(self, body: bytes, kind: Kind, path: tuple[int, ...]) -> tuple[bytes | None, dict[str, str]]:
        """Return the body of a composite type anew, or None where it is a leaf; and fields to declare."""
        if kind.multipart:
            pieces = mime.pieces(body, kind.boundary) if kind.boundary else None
            if pieces is None:
                return None, {}
            return self._parts(pieces, kind, path), self._relabelled(kind)
        # What is called base64 and begins with a field is none: many readers know, and all would lose it with its signs taken out.
        plain = kind.encoding in _IDENTITY or (kind.encoding == "base64" and headers.head_length(body) > 0)
        if plain and kind.type in ("message/rfc822", "message/global", "message/news"):
            noted, changed = len(self.receipts), self.body
            try:
                return self._within(kind).entity(body, (*path, 1), "text/plain"), self._relabelled(kind)
            except (NotAscii, _Stuck):
                if kind.type != _GLOBAL:
                    raise
                del self.receipts[noted:]  # of a message/global all may be encoded as one, whatever address or seal is within
                self.body = changed
        return None, {}

    def _within(self, kind: Kind) -> _Work:
        covered = self._covered or (kind.eight_bit_declared and not self._seven_bit)
        wrapped = self._wrapped or kind.type == _GLOBAL
        if (covered, wrapped) == (self._covered, self._wrapped):
            return self
        return _Work(self._seven_bit, self.receipts, covered=covered, wrapped=wrapped)

    def _relabelled(self, kind: Kind) -> dict[str, str]:
        return {"encoding": "7bit"} if self._seven_bit and kind.eight_bit_declared else {}

    def _parts(self, pieces: list[bytes], kind: Kind, path: tuple[int, ...]) -> bytes:
        default = "message/rfc822" if kind.type == "multipart/digest" else "text/plain"
        made = list(pieces)
        for n in range(2, len(pieces) - 2, 2):
            made[n] = self.entity(pieces[n], (*path, n // 2), default)
        for n, name in ((0, "preamble"), (len(pieces) - 1, "epilogue")):
            if not self._fits(pieces[n]):
                made[n] = b"\r\n" if n else b""
                self._note(f"removed the {name}, which mail programs do not show", path)
        for n in range(1, len(pieces), 2):  # blanks that pad a delimiter
            if not self._fits(pieces[n]):
                made[n] = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", pieces[n])
        if kind.signed and made != pieces:
            what = "signed" if kind.type.endswith("signed") else "encrypted"
            raise _Stuck(f"it is {what} (S/MIME or PGP), so that part of it cannot be re-encoded{_place(path)}")
        return b"".join(made)

    # --- leaves ---

    def _leaf(self, body: bytes, kind: Kind, path: tuple[int, ...]) -> tuple[bytes, dict[str, str]]:
        """Return the body of a leaf anew, and the fields to declare."""
        long, eight = has_long_line(body), not body.isascii()
        must = long or (eight and self._seven_bit)
        if not must and (self._fits(body) or kind.eight_bit_declared):
            return body, {}
        why = " and ".join(["a line over 998 octets"] * long + ["8-bit octets"] * eight)
        known = kind.encoding in _IDENTITY | _ENCODED
        encodable = kind.encoding in _ENCODED or kind.type.startswith(_GLOBAL)
        composite = kind.multipart or (kind.type.startswith("message/") and not encodable)
        if composite or not known:
            wrong = f"of type {kind.type}, which must not be encoded"
            of = wrong if composite else f"with the unknown encoding {kind.encoding!r}"
            if not must:
                self._note(f"{LEFT}: {why} in a part {of}", path)
                return body, {}
            if composite:
                raise _Stuck(f"it has {why} in a part {of}{_place(path)}")
        if kind.encoding == "base64":
            self._note(f"rewrapped base64 to lines of 76 ({why})", path)
            return _lines(_NOT_BASE64.sub(b"", body), body), {}
        if kind.encoding == "quoted-printable":
            self._note(f"repaired quoted-printable ({why})", path)
            return b"\r\n".join(_mended(line) for line in body.split(b"\r\n")), {}
        text = kind.type.startswith("text/")
        readable = text or kind.type.startswith(_GLOBAL)
        encoding = "quoted-printable" if readable and len(body.translate(None, _HIGH)) * 3 > len(body) * 2 else "base64"
        made = _quoted_printable(body) if encoding == "quoted-printable" else _lines(binascii.b2a_base64(body, newline=False), body)
        instead = "" if known else f" instead of {kind.encoding!r}"
        self._note(f"encoded as {encoding}{instead} ({why})", path)
        declared = {"encoding": encoding}
        if eight and text and kind.charset is None:
            declared["charset"] = _charset(body)
        return made, declared

    # --- header fields ---

    def _declared(self, fields: list[Field], kind: Kind, named: dict[str, str], path: tuple[int, ...]) -> list[Field]:
        """Return `fields` with the encoding and the charset that the new body has."""
        made = list(fields)
        if "charset" in named:
            found = next((n for n, field in enumerate(made) if field.key == "content-type"), None)
            if found is None:
                made.append(Field("Content-Type", f"Content-Type: {kind.type}; charset={named['charset']}\r\n".encode()))
            else:
                line = made[found].raw.rstrip(b"\r\n \t;")
                made[found] = Field(made[found].name, line + f"; charset={named['charset']}\r\n".encode())
            self._touched("content-type", path)
        if "encoding" in named and named["encoding"] != kind.encoding:
            line = f"Content-Transfer-Encoding: {named['encoding']}\r\n".encode()
            new = Field("Content-Transfer-Encoding", line)
            found = next((n for n, field in enumerate(made) if field.key == "content-transfer-encoding"), None)
            if found is None:
                made.append(new)
            else:
                made[found] = new
            self._touched("content-transfer-encoding", path)
        if named and not path and not any(field.key == "mime-version" for field in made):
            made.append(Field("MIME-Version", b"MIME-Version: 1.0\r\n"))
            self._touched("mime-version", path)
        return made

    def _field(self, field: Field, path: tuple[int, ...]) -> Field:
        if self._fits(field.raw):
            return field
        if len(field.name) > NAME_MAX:
            self._note(f"removed a field whose name has {len(field.name)} octets", path)
            self._touched(field.key, path)
            return Field(field.name, b"")
        try:
            plain = field if self._covered else ascii_field(field)
        except NotAscii as error:
            if not path or self._wrapped or self._seven_bit:
                raise
            plain = field
            self._note(f"{LEFT}: {error}", path)
        made = folded(plain)
        if made is field:
            return field
        if plain is not field:
            self._note(f"encoded {field.name} in ASCII", path)
        if made is not plain:
            self._note(f"broke a line of {field.name} that was longer than 998 octets", path)
        self._touched(field.key, path)
        return made

    def _touched(self, key: str, path: tuple[int, ...]) -> None:
        if path:
            self.body = True
        else:
            self.fields.add(key)

    def _note(self, text: str, path: tuple[int, ...]) -> None:
        self.receipts.append(text + _place(path))


def _place(path: tuple[int, ...]) -> str:
    return f" in part {'.'.join(map(str, path))}" if path else ""


def _charset(body: bytes) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "unknown-8bit"
    return "utf-8"


def _quoted_printable(data: bytes) -> bytes:
    # binascii takes the line end of its soft breaks from the first line: so there is one, at least at the end.
    return binascii.b2a_qp(data + b"\r\n", quotetabs=False, istext=True).removesuffix(b"\r\n")


def _mended(line: bytes) -> bytes:
    """Return a line of quoted-printable without 8-bit octets, in as many lines as it takes; what was escaped stays so."""
    if fits(line):
        return line
    line = _HIGH_OCTET.sub(lambda found: b"=%02X" % found[0][0], line)
    return b"=\r\n".join(_QUOTED_RUN.findall(line)) if len(line) > 76 else line


def _lines(encoded: bytes, body: bytes) -> bytes:
    """Return base64 in lines, with a line end behind the last one where `body` had one."""
    lines = [encoded[n : n + 76] for n in range(0, len(encoded), 76)]
    return b"\r\n".join(lines) + (b"\r\n" if body.endswith(b"\r\n") else b"")
