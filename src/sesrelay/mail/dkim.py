"""DKIM: what is signed of a message, and the field that says so; and the record that the sender's domain publishes.

Invariant: what is signed are the octets given; the caller changes none of them afterwards, dot-stuffing aside.
Invariant: a field of `OVERSIGNED` cannot be added to a signed message without breaking the signature.

Source: RFC 6376 §3.4.2, §3.4.4 (relaxed), §3.5 (tags), §5.4 (which fields), §8.15 (fields added); RFC 8463 (Ed25519).
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sesrelay.mail.filed import Filed, opening, whole_lines
from sesrelay.mail.headers import Field, fields, head_length

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

# Signed once more than they are there. Sender and the list's own fields are left open: mailing lists add them.
OVERSIGNED = (
    "from", "reply-to", "subject", "date", "to", "cc", "message-id", "in-reply-to", "references", "mime-version", "content-type",
    "content-transfer-encoding",
)  # fmt: skip
# Signed where they are there. RFC 8058 §4 wants it of List-Unsubscribe, Gmail of Feedback-ID.
SIGNED = frozenset({
    *OVERSIGNED, "sender", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-date", "resent-message-id",
    "content-id", "content-description", "content-disposition", "list-id", "list-help", "list-unsubscribe",
    "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive", "auto-submitted", "feedback-id",
})  # fmt: skip

PIECE = 256 * 1024  # octets of a body that are looked at in one go, so that other threads get their turn
LINE = 72  # octets of a folded line, without what stands in front
_SPACES = re.compile(rb"[ \t]+")
_AROUND = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """What signs for a domain. `sign` returns the signature of its argument, hashing included; it blocks."""

    domain: str
    selector: str
    algorithm: Algorithm
    sign: Callable[[bytes], bytes] = field(repr=False)

    def __str__(self) -> str:
        return f"d={self.domain} s={self.selector} {self.algorithm}"


def signatures(content: bytes | Filed, keys: Sequence[DkimKey], now: int) -> bytes:
    """Return a DKIM-Signature field for each key, to stand in front of `content`. Units: `now` Unix seconds. Blocks."""
    head = opening(content)
    head_end = head_length(head)
    signed = [one for one in fields(head[:head_end]) if one.key in SIGNED]
    names, canonical = _chosen(signed)
    digest = b64encode(body_hash(content, head_end))
    made: list[bytes] = []
    for key in keys:
        tags = f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain}; s={key.selector}; t={now};\r\n\th="
        unsigned = b"DKIM-Signature: " + tags.encode() + _folded(names) + b";\r\n\tbh=" + digest + b";\r\n\tb="
        name, _, value = unsigned.partition(b":")
        signature = b64encode(key.sign(canonical + relaxed(name, value))).decode()
        lines = [signature[at : at + LINE] for at in range(0, len(signature), LINE)]
        made.append(unsigned + "\r\n\t ".join(lines).encode() + b"\r\n")
    return b"".join(made)


def _chosen(signed: Sequence[Field]) -> tuple[list[str], bytes]:
    """Return the names for `h=`, and the fields as they are hashed: of one name, from the last upwards (§5.4.2)."""
    names: list[str] = []
    canonical: list[bytes] = []
    for name in dict.fromkeys((*OVERSIGNED, *(one.key for one in signed))):
        same = [one for one in reversed(signed) if one.key == name]
        names += [name] * (len(same) + (name in OVERSIGNED))
        canonical += [relaxed(name.encode(), one.raw.partition(b":")[2]) + b"\r\n" for one in same]
    return names, b"".join(canonical)


def _folded(names: Sequence[str]) -> bytes:
    lines = [""]
    for place, name in enumerate(names):
        word = name + (":" if place < len(names) - 1 else "")
        if len(lines[-1]) + len(word) > LINE:
            lines.append("")
        lines[-1] += word
    return "\r\n\t ".join(lines).encode()


def relaxed(name: bytes, value: bytes) -> bytes:
    """Return a header field in relaxed form, without its line end."""
    unfolded = value.replace(b"\r\n", b"")
    return name.strip(_AROUND).lower() + b":" + _SPACES.sub(b" ", unfolded).strip(_AROUND)


def body_hash(content: bytes | Filed, head_end: int) -> bytes:
    """Return the hash of the body in relaxed form; the body begins behind the empty line at `head_end`."""
    digest = hashlib.sha256()
    for piece in _body(content, head_end + 2 if content[head_end : head_end + 2] == b"\r\n" else head_end):
        digest.update(piece)
    return digest.digest()


def _body(content: bytes | Filed, start: int) -> Iterator[bytes]:
    """Yield the body in relaxed form, in pieces of whole lines."""
    end = _last(content, start)
    while start < end:
        piece = whole_lines(content, start, end, PIECE)
        start += len(piece)
        if b"\t" in piece:
            piece = piece.replace(b"\t", b" ")
        while b"  " in piece:
            piece = piece.replace(b"  ", b" ")
        if b" \r\n" in piece:
            piece = piece.replace(b" \r\n", b"\r\n")
        yield piece if start < end else piece + b"\r\n"


def _last(content: bytes | Filed, start: int) -> int:
    """Return where the body ends once its empty lines at the end are gone, and the last line's end with them."""
    end = len(content)
    while end > start:
        piece = content[max(start, end - PIECE) : end]
        kept = len(piece.rstrip(_AROUND))
        if kept:
            return end - len(piece) + kept
        end -= len(piece)
    return start


def record_name(domain: str, selector: str) -> str:
    """Return the name of the TXT record, without a final dot."""
    return f"{selector}._domainkey.{domain}"


def record(algorithm: Algorithm, public: bytes) -> str:
    """Return what the TXT record says. `public`: the key as `p=` holds it before base64."""
    return f"v=DKIM1; k={algorithm.partition('-')[0]}; p={b64encode(public).decode()}"
