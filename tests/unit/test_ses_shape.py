"""What SES takes, made of what applications send: each rule, its receipt, and that nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail import headers
from sesrelay.mail.lineends import Canonical, canonical
from sesrelay.mail.outcome import Failed, Scope
from sesrelay.policy.ses_senders import covered, without
from sesrelay.policy.ses_shape import ONCE, Facts, Rules, Shaped, shape
from sesrelay.testing.ses_rules import check_form

START = b"From: a@example.com\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\n"
END = b"\r\nbody\r\n"
PLAIN = Canonical(START + b"Received: by x\r\nReceived: by y\r\nX-A: 1\r\nX-A: 2\r\nSubject : s\r\n\tfrom: not a field\r\n" + END)
ORIGINAL = b"Message-ID: <1@example.com>\r\n"


def shaped(*lines: bytes, body: bytes = END, start: bytes = START, **more: Any) -> Shaped:
    """Return START, `lines` and a body as SES takes them. `more`: of Rules and Facts."""
    made = tried(*lines, body=body, start=start, **more)
    assert isinstance(made, Shaped)
    return made


def tried(*lines: bytes, body: bytes = END, start: bytes = START, **more: Any) -> Shaped | Failed:
    content = start + b"".join(line + b"\r\n" for line in lines) + body
    facts = {name: more.pop(name) for name in ("verified", "also_once", "source") if name in more}
    return shape(canonical(content)[0], Rules(**more), Facts(**({"source": "a@example.com", "accepted": 1_800_000_000.0} | facts)))


def head_of(made: Shaped) -> bytes:
    return made.content[: headers.head_length(made.content)]


def test_a_message_without_fault_is_the_same_object() -> None:
    made = shape(PLAIN, Rules(), Facts("a@example.com", 0.0))
    assert made == Shaped(PLAIN, (), "a@example.com")
    assert made.content is PLAIN


@pytest.mark.parametrize("name", sorted(ONCE - {"return-path", "from", "date", "message-id", "references"}))
def test_each_field_that_may_stand_once_does(name: str) -> None:
    once = f"{name}: 1".encode()
    made = shaped(b"X-A: 0", once, f"{name.upper()}: 2".encode())
    assert made.content == START + b"X-A: 0\r\n" + once + b"\r\n" + END
    if name != "dkim-signature":
        assert made.changes == (f"removed another {name.upper()}, different from the first",)


def test_identical_duplicates_are_told_from_different_ones() -> None:
    made = shaped(b"Subject: a\r\n b", b"Subject:  a b", b"SUBJECT: c")
    assert head_of(made) == START + b"Subject: a\r\n b\r\n"
    assert made.changes == (
        "removed another Subject, identical to the first", "removed another SUBJECT, different from the first"
    )  # fmt: skip


def test_a_header_that_ses_names_is_collapsed_too() -> None:
    assert head_of(shaped(b"X-B: 1", b"x-b: 2", also_once=frozenset({"x-b"}))) == START + b"X-B: 1\r\n"


def test_orders_to_ses_go_unless_trusted() -> None:
    lines = (b"X-SES-TENANT: t", b"x-ses-message-tags: a=b", b"X-SES: harmless")
    assert head_of(shaped(*lines)) == START + b"X-SES: harmless\r\n"
    made = shaped(*lines, trusted=frozenset({"x-ses-tenant"}))
    assert head_of(made) == START + b"X-SES-TENANT: t\r\nX-SES: harmless\r\n"
    assert made.changes == ("removed x-ses-message-tags",)


def test_private_fields_go_with_their_folded_lines() -> None:
    made = shaped(b"Bcc: a@b,\r\n c@d", b"Resent-Bcc: e@f", b"Return-path: <x@y>")
    assert head_of(made) == START
    assert made.changes == ("removed Bcc", "removed Resent-Bcc", "removed Return-path")


def test_what_is_missing_is_added() -> None:
    made = shaped(b"Subject: s", start=b"")
    assert head_of(made) == b"Subject: s\r\nFrom: a@example.com\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
    assert made.changes == ("added From", "added Date")


# --- threads ---


@pytest.mark.parametrize(
    ("lines", "references"),
    [
        ([b"Message-ID: <1@a>"], b"References: <1@a>\r\n"),
        ([b"message-id:\r\n <1@a>", b"References: <0@a>\r\n <x@b> "], b"References: <0@a>\r\n <x@b>\r\n <1@a>\r\n"),
        ([b"Message-ID: <1@a>", b"In-Reply-To: <0@a>"], b"References: <0@a>\r\n <1@a>\r\n"),
        ([b"Message-ID: <1@a>", b"References:"], b"References:\r\n <1@a>\r\n"),
    ],
)
def test_the_message_id_goes_to_the_end_of_the_references(lines: list[bytes], references: bytes) -> None:
    made = shaped(*lines)
    (found,) = (field.raw for field in headers.fields(head_of(made)) if field.key == "references")
    assert found == references
    assert made.changes == ("put Message-ID into References",)
    assert shaped(*lines, thread_ids=False).changes == ()


@pytest.mark.parametrize(
    "line", [b"Message-ID: <1@a>\r\nReferences: <0@a> <1@a>", b"Message-ID: no id", b"Message-ID: <a b@c>", b"X: y"]
)
def test_where_there_is_nothing_to_put_nothing_is_put(line: bytes) -> None:
    assert shaped(line).changes == ()


# --- signatures ---

SIGNED = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com;\r\n h=From : To:Subject; bh=x; b=y"


def test_a_signature_stays_where_nothing_that_it_covers_changes() -> None:
    made = shaped(SIGNED, b"Message-ID: <1@a>", b"Bcc: x@y", b"Subject: s")
    assert SIGNED in made.content
    assert made.changes == ("removed Bcc", "put Message-ID into References")


@pytest.mark.parametrize(
    ("signed", "lines", "body", "why"),
    [
        (SIGNED.replace(b"To", b"date"), (), END, "it signs Date, which SES overwrites"),
        (SIGNED.replace(b"To", b"MESSAGE-ID"), (), END, "it signs Message-ID, which SES overwrites"),
        (SIGNED.replace(b"To", b"References"), (ORIGINAL.strip(),), END, "it signs references, which was changed"),
        (SIGNED, (b"Subject: a", b"Subject: b"), END, "it signs subject, which was changed"),
        (SIGNED, ("Subject: é".encode(),), END, "it signs subject, which was changed"),
        (SIGNED, (), b"\r\ncaf\xc3\xa9\r\n", "it signs the body, which was re-encoded"),
    ],
)
def test_a_signature_goes_that_will_not_verify(signed: bytes, lines: tuple[bytes, ...], body: bytes, why: str) -> None:
    made = shaped(signed, *lines, body=body)
    assert b"DKIM-Signature" not in made.content
    assert made.changes[-1] == f"removed DKIM-Signature of example.com: {why}"


def test_of_several_signatures_the_first_that_holds_stays() -> None:
    broken, holds = SIGNED.replace(b"From", b"Date"), SIGNED.replace(b"example.com", b"two.example")
    made = shaped(broken, holds, SIGNED)
    assert head_of(made) == START + holds + b"\r\n"
    assert made.changes == (
        "removed DKIM-Signature of example.com: it signs Date, which SES overwrites",
        "removed DKIM-Signature of example.com: another signature stands above it",
    )


# --- senders ---


def only_ok(address: str) -> bool | None:
    return address.endswith("@ok.example")


def test_an_unverified_from_is_rewritten_where_the_route_says_so() -> None:
    start = b'From: "Shop, Inc." <a@other.example>\r\nSender: b@other.example\r\nDate: d\r\n'
    made = shaped(start=start, rewrite_from="post@ok.example", verified=only_ok, source="a@other.example")
    assert made.source == "post@ok.example"
    assert [field.raw.decode() for field in headers.fields(head_of(made))] == [
        'From: "Shop, Inc." <post@ok.example>\r\n',
        'X-Original-From: "Shop, Inc." <a@other.example>\r\n',
        'Reply-To: "Shop, Inc." <a@other.example>\r\n',
        "Sender: post@ok.example\r\n",
        "X-Original-Sender: b@other.example\r\n",
        "Date: d\r\n",
    ]
    assert made.changes[0] == "From a@other.example became post@ok.example: it is not a verified identity"
    assert len(made.changes) == 6
    assert shaped(start=start, verified=only_ok, source="a@other.example").changes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("From: Shop <a@other.example>", "From: Shop <post@ok.example>"),
        ("From: =?utf-8?q?J=C3=BCrgen?= <a@other.example>", "From: =?utf-8?q?J=C3=BCrgen?= <post@ok.example>"),
        ("From: Jürgen <a@other.example>", "From: =?utf-8?q?J=C3=BCrgen?= <post@ok.example>"),
        ('From: "Doe, \\"J\\"" <a@other.example>', 'From: "Doe, \\"J\\"" <post@ok.example>'),
        ("From: a@other.example (Jane)", "From: Jane <post@ok.example>"),
        ('From: "=?utf-8?q?J?=, Jr." <a@other.example>', 'From: "=?utf-8?q?J?=, Jr." <post@ok.example>'),
        ("From: x@ok.example", "From: x@ok.example"),
        ("From: x@ok.example, a@other.example", "From: post@ok.example"),
    ],
)
def test_the_name_stays_where_the_address_goes(before: str, after: str) -> None:
    made = shaped(
        start=f"{before}\r\nReply-To: r@x.example\r\nDate: d\r\n".encode(), rewrite_from="post@ok.example", verified=only_ok
    )
    assert made.content.startswith(after.encode() + b"\r\n")
    assert made.content.count(b"Reply-To:") == 1


@pytest.mark.parametrize("start", [b"From: a@other.example\r\nReply-To:\r\n", b"Reply-To: \r\n\t\r\nFrom: a@other.example\r\n"])
def test_replies_go_to_the_old_from_where_reply_to_is_empty(start: bytes) -> None:
    made = shaped(start=start + b"Date: d\r\n", rewrite_from="post@ok.example", verified=only_ok, source="post@ok.example")
    assert [field.value for field in headers.fields(head_of(made)) if field.key == "reply-to"] == ["a@other.example"]
    assert made.changes[-1] == "filled the empty Reply-To with the old From"
    check_form("post@ok.example", ["b@example.org"], made.content, head_of(made))
    verified = shaped(start=start + b"Date: d\r\n", rewrite_from="post@ok.example", verified=lambda _: True)
    assert verified.changes == ()


def test_what_nobody_knows_is_not_rewritten() -> None:
    assert shaped(rewrite_from="post@ok.example").changes == ()
    learnt = without(lambda _: None, frozenset({"a@example.com"}))
    assert shaped(rewrite_from="post@ok.example", verified=learnt).source == "post@ok.example"


def test_an_address_covers_its_labels_and_no_look_alike() -> None:
    identities = frozenset({"post@shop.example", "a+b@shop.example"})
    for address in ("post+order42@shop.example", "Post+1+2@SHOP.example", "post+@shop.example", "a+b@shop.example"):
        assert covered(address, identities), address
    for address in ("post2+1@shop.example", "+post@shop.example", "post+1@a.shop.example", "a@shop.example", "a+c@shop.example"):
        assert not covered(address, identities), address


def test_a_domain_covers_what_is_below_and_no_look_alike() -> None:
    identities = frozenset({"example.com", "one@example.net", "xn--bcher-kva.example"})
    for address in ("a@example.com", "a@b.EXAMPLE.com", "One@example.net", "a@bücher.example"):
        assert covered(address, identities), address
    for address in ("a@notexample.com", "two@example.net", "a@com", "", "a"):
        assert not covered(address, identities), address


# --- what cannot be carried ---


def test_what_cannot_be_carried_is_bounced_and_says_why() -> None:
    failed = tried("Cc: jürgen@x.example".encode())
    assert isinstance(failed, Failed)
    assert (failed.reply.code, failed.reply.enhanced, failed.scope) == (554, "5.6.7", Scope.MESSAGE)
    assert "jürgen@x.example" in failed.reply.text
    sealed = tried(b'Content-Type: multipart/signed; boundary="b"', body=b"\r\n--b\r\n\r\n" + b"x" * 999 + b"\r\n--b--\r\n")
    assert isinstance(sealed, Failed)
    assert (sealed.reply.code, sealed.reply.enhanced) == (554, "5.6.0")
    assert "S/MIME or PGP" in sealed.reply.text
    assert "before it signs" in sealed.remedy


@pytest.mark.parametrize(
    ("lines", "body", "receipts"),
    [
        ([b"Content-Transfer-Encoding: 8-bit"], "\r\nGrüße\r\n", 0),
        ([b"Content-Transfer-Encoding: utf-8"], "\r\nGrüße\r\n", 1),
        ([b"Content-Type: multipart/mixed; boundary=a"], "\r\n--b\r\n\r\nGrüße\r\n--b--\r\n", 1),
        ([b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: 8bit"], "\r\nFrom: jö@example.net\r\n\r\nGrüße\r\n", 0),
        ([b"Content-Type: message/rfc822"], "\r\nFrom: jö@example.net\r\n\r\nHello.\r\n", 1),
    ],
)
def test_what_ses_takes_leaves_as_it_is_however_it_is_declared(lines: list[bytes], body: str, receipts: int) -> None:
    made = shaped(*lines, body=body.encode())
    assert made.content == START + b"".join(line + b"\r\n" for line in lines) + body.encode()
    assert len(made.changes) == receipts
    check_form("a@example.com", ["b@example.org"], made.content, head_of(made))


# --- whatever comes ---

_LINES = st.sampled_from(
    [
        b"From: a@example.com", b"From: b@other.example", b"SUBJECT: s", "Subject: é".encode(), b"subject: " + b"w " * 700, b"X-A: 1", b"X-SES-A: 1",
        b"Bcc: x@y", b"To: c@d", b"Date: now", b"Message-ID: <1@a>", b"message-id:\r\n <2@a>", b"References: <0@a>", b"In-Reply-To: <3@a>",
        SIGNED, SIGNED.replace(b"To", b"Date"), SIGNED.replace(b"example.com", b"two.example"), b"Sender: s@other.example",
        b"Content-Type: text/plain", b"Content-Transfer-Encoding: 8bit", b"Content-Type: text/html; charset=utf-8", b"X-L: " + b"l" * 1500,
    ]
)  # fmt: skip
_BODIES = st.sampled_from([END, b"", b"\r\n", b"\r\n" + b"x" * 999 + b"\r\n", b"\r\ncaf\xc3\xa9\r\n", b"no empty line\r\n"])


@given(st.lists(_LINES, max_size=9), _BODIES, st.sampled_from([None, "post@ok.example"]), st.booleans())
def test_ses_takes_what_is_made_and_making_it_again_changes_nothing(
    lines: list[bytes], body: bytes, rewrite_from: str | None, thread_ids: bool
) -> None:
    content = canonical(b"".join(line + b"\r\n" for line in lines) + body)[0]
    rules = Rules(thread_ids=thread_ids, rewrite_from=rewrite_from)
    facts = Facts("a@example.com", 0.0, lambda address: not address.endswith("other.example"))
    made = shape(content, rules, facts)
    assert isinstance(made, Shaped)
    check_form("a@example.com", ["b@example.org"], made.content, head_of(made))
    assert shape(made.content, rules, facts) == Shaped(made.content, (), made.source)
    assert made.changes or made.content == content
    if made.content.isascii() and content.isascii() and b"x" * 999 not in content:
        assert made.content.endswith(body)


@given(st.lists(st.tuples(st.sampled_from(["X-A", "X-B", "To", "Received"]), st.text("ab :,", max_size=9))))
def test_fields_that_break_no_rule_keep_their_octets_and_their_order(pairs: list[tuple[str, str]]) -> None:
    content = canonical(START + b"".join(f"{name}: {value}\r\n".encode() for name, value in pairs) + END)[0]
    made = shape(content, Rules(), Facts("a@example.com", 0.0))
    assert isinstance(made, Shaped)
    assert made.content is content
