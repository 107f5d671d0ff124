"""Signatures, judged by dkimpy: over every shape of header and body, and broken by every change that matters."""

from __future__ import annotations

import base64
import hashlib

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.config.dkim_keys import SigningKey, generate
from sesrelay.mail.dkim import PIECE, DkimKey, body_hash, record, record_name, relaxed, signatures
from sesrelay.mail.headers import head_length

RSA, ED25519 = generate("rsa")[1], generate("ed25519")[1]
NOW = 1_700_000_000
HEAD = b"From: A <a@example.org>\r\nTo: b@example.com\r\nSubject: hello\r\nDate: Sat, 28 Nov 2026 21:00:00 +0000\r\n"
MESSAGE = HEAD + b"\r\nHello.\r\n"


def key(made: SigningKey, selector: str = "s1") -> DkimKey:
    return DkimKey("example.org", selector, made.algorithm, made.sign)


def verified(content: bytes, made: SigningKey, *, index: int = 0, selector: str = "s1") -> bool:
    def lookup(name: bytes, timeout: float = 5) -> bytes:
        assert name.decode().rstrip(".") == record_name("example.org", selector)
        return record(made.algorithm, made.public).encode()

    try:
        return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=lookup))
    except dkim.ValidationError:
        return False


BODIES = [
    b"", b"\r\n", b"\r\n\r\n\r\n", b"Hello.\r\n", b"Hello.  \t \r\n\t\r\n \r\n", b"a\t b   c\r\n\r\n d\r\n", b".\r\n..\r\n",
    b"\xff\xfe 8-bit\r\n", b"x" * 5000 + b"\r\n", b"no end", (b"line of a large body \t with blanks \r\n" * 20_000), b"x " * PIECE + b"\r\nshort\r\n",
]  # fmt: skip


@pytest.mark.parametrize("made", [RSA, ED25519], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_dkimpy_verifies_any_body(made: SigningKey, body: bytes) -> None:
    content = HEAD + b"\r\n" + body
    assert verified(signatures(content, [key(made)], NOW) + content, made)


HEADS = [
    b"From: a@example.org\r\n", b"FROM:\t a@example.org  \r\nSubject:\r\n", b"From: a@example.org\r\nSubject: folded\r\n \t here\r\n\tand there \r\n",
    b"Received: from x\r\n\tby y\r\nFrom: a@example.org\r\nReceived: from z\r\n", b"From: a@example.org\r\nTo: one@x\r\nTo: two@x\r\nto: three@x\r\n",
    "From: Bücher <a@example.org>\r\nSubject: grüße\r\n".encode(), b"From: a@example.org\r\nList-Unsubscribe: <https://x.example/>\r\nX-Other: y\r\n",
    b"From: a@example.org\r\nDKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.example; s=x; h=from; bh=AA==; b=AA==\r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_dkimpy_verifies_any_header(head: bytes) -> None:
    content = head + b"\r\nHello.\r\n"
    assert verified(signatures(content, [key(RSA)], NOW) + content, RSA)


def test_two_keys_sign_at_once_and_each_for_itself() -> None:
    content = signatures(MESSAGE, [key(RSA, "r"), key(ED25519, "e")], NOW) + MESSAGE
    assert content.count(b"DKIM-Signature:") == 2
    assert verified(content, RSA, index=0, selector="r")
    assert verified(content, ED25519, index=1, selector="e")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"Hello.", b"Hullo."),
        lambda content: content.replace(b"Subject: hello", b"Subject: hullo"),
        lambda content: content + b"more\r\n",
        lambda content: b"From: evil@example.net\r\n" + content,
        lambda content: b"Subject: another\r\n" + content,
        lambda content: b"Cc: one-more@example.net\r\n" + content,
        lambda content: b"Reply-To: evil@example.net\r\n" + content,
        lambda content: b"Content-Type: text/html\r\n" + content,
    ],
)
def test_what_changes_the_message_breaks_the_signature(change: object) -> None:
    content = signatures(MESSAGE, [key(RSA)], NOW) + MESSAGE
    assert verified(content, RSA)
    assert not verified(change(content), RSA)  # type: ignore[operator]


def test_what_a_relay_adds_does_not() -> None:
    content = signatures(MESSAGE, [key(RSA)], NOW) + MESSAGE
    assert verified(b"Received: from a by b\r\nX-Spam: no\r\nList-Id: <l.example>\r\nSender: l@example\r\n" + content, RSA)
    assert verified(content.replace(b"Subject: hello", b"Subject:  hello \t"), RSA)  # relaxed
    assert verified(content + b"\r\n\r\n", RSA)


def test_the_field_is_folded_and_names_what_it_signs() -> None:
    content = HEAD + b"List-Unsubscribe: <https://x.example/>\r\nReceived: x\r\nBcc: y@z\r\n\r\nHello.\r\n"
    field = signatures(content, [key(RSA)], NOW)
    assert max(map(len, field.split(b"\r\n"))) <= 100  # the first line has domain and selector
    assert max(map(len, field.split(b"\r\n")[1:])) < 78
    tags = dict(tag.strip().split(b"=", 1) for tag in field.partition(b":")[2].replace(b"\r\n", b"").split(b";"))
    assert (tags[b"d"], tags[b"s"], tags[b"t"], tags[b"c"]) == (b"example.org", b"s1", b"1700000000", b"relaxed/relaxed")
    names = tags[b"h"].replace(b"\t", b"").replace(b" ", b"").split(b":")
    assert names.count(b"from") == names.count(b"subject") == 2
    assert names.count(b"cc") == names.count(b"list-unsubscribe") == 1
    assert not {b"received", b"bcc", b"dkim-signature"} & set(names)


def test_the_examples_of_the_rfc() -> None:
    """RFC 6376 §3.4.5 and §3.4.4."""
    assert relaxed(b"A", b" X\r\n") == b"a:X"
    assert relaxed(b"B ", b" Y\t\r\n\tZ  \r\n") == b"b:Y Z"
    content = b"A: X\r\n\r\n C \r\nD \t E\r\n\r\n\r\n"
    assert body_hash(content, head_length(content)) == hashlib.sha256(b" C\r\nD E\r\n").digest()
    empty = base64.b64encode(body_hash(b"A: X\r\n\r\n\r\n", 6))
    assert empty == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@given(
    st.lists(st.sampled_from([b" ", b"\t", b"a", b"\r\n", b"b  c", b"."]), max_size=30).map(lambda parts: b"".join(parts) + b"\r\n")
)
def test_bodies_are_hashed_as_dkimpy_hashes_them(body: bytes) -> None:
    from dkim.canonicalization import Relaxed

    assert body_hash(b"A: b\r\n\r\n" + body, 6) == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
