"""Header surgery: what is not named stays byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail import headers
from sesrelay.mail.lineends import Canonical, canonical

CONTENT = (
    b"From: Ann <ann@example.com>\r\nTo: b@example.org\r\nBcc: secret@example.net,\r\n\tother@example.net\r\n"
    b"Subject: =?utf-8?q?caf=C3=A9?=\r\nMessage-ID:\r\n <id@example.com>\r\nReturn-Path: <x@example.com>\r\n\r\nHello\r\n.\r\n"
)


def test_facts() -> None:
    facts = headers.facts(headers.split(CONTENT)[0])
    assert facts == headers.Facts(("ann@example.com",), "<id@example.com>", "café", 0, True)


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"a@example.com", ("a@example.com",)),
        (b'"Evil" <a@example.com>, b@example.org', ("a@example.com", "b@example.org")),
        (b"=?utf-8?q?J=C3=B6rg?= <j@example.com>", ("j@example.com",)),
        ("Jörg <j@example.com>".encode(), ("j@example.com",)),
        (b'"a@evil.example" <b@example.com>', ("b@example.com",)),
        (b"Team:a@example.com,\r\n b@example.com;", ("a@example.com", "b@example.com")),
        (b"a@example.org <b@example.com>", ("a@example.org", "b@example.com")),
        (b"(c, d) <b@example.com>", ("b@example.com",)),
        (b"nobody", ()),
        (b"", ()),
    ],
)
def test_header_from(value: bytes, addresses: tuple[str, ...]) -> None:
    assert headers.facts(b"From: " + value + b"\r\n").header_from == addresses


def test_two_from_headers_are_both_seen() -> None:
    assert headers.facts(b"From: a@example.com\r\nFROM : b@example.org\r\n").header_from == ("a@example.com", "b@example.org")


def test_private_headers_go_and_nothing_else() -> None:
    head, body = headers.split(CONTENT)
    kept, receipts = headers.without_private(head)
    assert receipts == ("removed Bcc", "removed Return-Path")
    assert headers.join(kept, body) == CONTENT.replace(b"Bcc: secret@example.net,\r\n\tother@example.net\r\n", b"").replace(
        b"Return-Path: <x@example.com>\r\n", b""
    )


@pytest.mark.parametrize("content", [b"", b"\r\n", b"no header at all\r\n", b"\r\nbody: x\r\n", b"A: b\r\nnot a field\r\n"])
def test_content_without_a_proper_header(content: bytes) -> None:
    head, body = headers.split(content)
    assert headers.fields(headers.join(b"Received: x\r\n" + head, body))[0].raw == b"Received: x\r\n"
    assert body in content


def by_lines(content: bytes) -> int:
    """The end of the header, looked for a line at a time."""
    at, begun = 0, False
    for line in content.split(b"\n")[:-1]:
        name, colon, _ = line.partition(b":")
        name = name.rstrip(b" \t")
        folded = line[:1] in (b" ", b"\t")
        if not (begun if folded else colon and name and all(33 <= octet <= 126 for octet in name)):
            break
        at, begun = at + len(line) + 1, True
    return at


@given(st.lists(st.sampled_from([b"A", b":", b"\r\n", b"\n", b" ", b"\t", b"x: y\r\n", b"\xff", b"\r"]), max_size=12).map(b"".join))
def test_the_header_ends_where_a_reader_of_lines_finds_its_end(content: bytes) -> None:
    assert headers.head_length(content) == by_lines(content)


@pytest.mark.parametrize(
    "content", [b"x" * 3_000_000 + b"\r\n", b"a:\r\n" * 200_000, b"a:\r\n" + b" \r\n" * 300_000], ids=lambda c: repr(c[:8])
)
def test_the_end_of_any_header_is_found_in_one_pass(content: bytes) -> None:
    head, body = headers.split(content)
    assert head + body == content
    headers.facts(head)
    assert b"".join(field.raw for field in headers.fields(head)) == head


@pytest.mark.parametrize(
    "value",
    [
        b" " * 1_000_000,
        b"\t" * 1_000_000 + b"x",
        b"a" + b" " * 1_000_000 + b"b",
        b'"' + b"a " * 500_000,
        b"<" * 1_000_000,
        b"(" * 1_000_000,
        b":" * 1_000_000,
    ],
    ids=lambda value: repr(value[:3]),
)
def test_a_header_of_a_megabyte_is_read_in_one_pass(value: bytes) -> None:
    head = b"".join(b"%b: %b\r\n" % (name, value) for name in (b"From", b"To"))
    facts = headers.facts(head)
    assert (facts.header_from, facts.endless_from) == ((), True)
    assert headers.completed(head, "example.com", "") == (head, ())


@pytest.mark.parametrize(
    "value", [b" " * 16_000, b"a" + b" " * 16_000 + b"b", b"(" * 16_000, b":" * 16_000, b"a," * 8_000], ids=lambda v: repr(v[:3])
)
def test_what_is_read_of_a_header_is_read_in_one_pass(value: bytes) -> None:
    head = b"".join(b"%b: %b\r\n" % (name, value) for name in (b"From", b"To")) * 20
    assert headers.facts(head[: len(head) // 20]).header_from == ()
    assert headers.completed(head, "example.com", "")[0].count(b"\r\n") == 40


def test_of_a_subject_without_end_the_beginning_is_read() -> None:
    assert headers.facts(b"Subject: " + b"=?utf-8?q?caf=C3=A9?= " * 40_000 + b"\r\n").subject == "café" * 50


def test_received_are_counted_with_folding() -> None:
    assert headers.facts(b"Received: a\r\n\tb\r\nrEceived:c\r\nX-Received: no\r\n").received == 2


_NAMES = st.sampled_from([b"From", b"Subject", b"BCC", b"bcc", b"X-Bcc", b"Return-Path", b"Received"])
_VALUES = st.binary(max_size=20).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))


@given(st.lists(st.tuples(_NAMES, _VALUES, st.booleans())), st.binary(max_size=50))
def test_surgery_on_any_header(parts: list[tuple[bytes, bytes, bool]], body: bytes) -> None:
    raws = [name + b":" + value + (b"\r\n folded" if folded else b"") + b"\r\n" for name, value, folded in parts]
    head = b"".join(raws)
    assert headers.split(headers.join(head, body)) == (head, body)
    kept, receipts = headers.without_private(head)
    private = {b"bcc", b"return-path"}
    assert kept == b"".join(raw for raw, (name, _, _) in zip(raws, parts, strict=True) if name.lower() not in private)
    assert len(receipts) == sum(name.lower() in private for name, _, _ in parts)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\0", b".", b"a", b"\r\n"]), max_size=30).map(b"".join))
def test_canonical_leaves_no_stray_line_end(content: bytes) -> None:
    cleaned, receipts = canonical(content)
    assert b"\0" not in cleaned
    assert cleaned.count(b"\r") == cleaned.count(b"\n") == cleaned.count(b"\r\n")
    assert canonical(cleaned) == (cleaned, ())
    if b"\0" not in content and content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n"):
        assert not receipts
        assert cleaned == content or cleaned == content + b"\r\n"


@pytest.mark.parametrize(
    ("field", "completed"),
    [
        (b"From: root (Cron Daemon)\r\n", b"From: Cron Daemon <root@host.example>\r\n"),
        (b"From: root\r\n", b"From: root@host.example\r\n"),
        (b"To: root, bob\r\n", b"To: root@host.example, bob@host.example\r\n"),
        (b"To: undisclosed-recipients:;\r\n", b"To: undisclosed-recipients:;\r\n"),
        (b"To: root, a@example.com\r\n", b"To: root@host.example, a@example.com\r\n"),
        (b"Cc: not an address list at all\r\n", b"Cc: not an address list at all\r\n"),
        (b"X-To: root\r\n", b"X-To: root\r\n"),
    ],
)
def test_bare_names_in_address_fields_are_completed(field: bytes, completed: bytes) -> None:
    head = b"From: a@example.com\r\n" + field if not field.startswith(b"From") else field
    made, receipts = headers.completed(head, "host.example", "")
    assert made == head.replace(field, completed)
    assert bool(receipts) is (field != completed)
    assert headers.facts(head).unqualified or field == completed


def test_a_missing_from_is_the_envelope_sender_unless_that_is_null() -> None:
    assert headers.completed(b"Subject: x\r\n", "h.example", "a@example.com") == (
        b"Subject: x\r\nFrom: a@example.com\r\n",
        ("added From",),
    )
    assert headers.completed(b"Subject: x\r\n", "h.example", "") == (b"Subject: x\r\n", ())


def test_the_mbox_line_goes() -> None:
    assert headers.without_envelope_line(b"From a@b Mon Jan  1 00:00:00 2026\r\nA: b\r\n\r\nx") == (
        b"A: b\r\n\r\nx",
        ("removed the mbox From line",),
    )
    assert headers.without_envelope_line(b"From: a@b\r\n\r\n")[1] == ()


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (b">From a@b Mon\r\nA: b\r\n", b"A: b\r\n"),
        (b"From a@b Mon\r\n>From c\r\n>>From d\r\nFrom : b\r\n", b"From : b\r\n"),
        (b">From now on\r\n\r\nA: b\r\n", b">From now on\r\n\r\nA: b\r\n"),  # a text, no header
        (b"From a\r\n>From now on\r\n\r\n", b"From a\r\n>From now on\r\n\r\n"),
        (b"From now on we meet on Mondays\r\nand more\r\n", b"From now on we meet on Mondays\r\nand more\r\n"),
        (b">From : b\r\nA: b\r\n", b">From : b\r\nA: b\r\n"),
    ],
)
def test_mbox_lines_go_where_a_header_follows_and_are_text_elsewhere(lines: bytes, kept: bytes) -> None:
    content, _ = canonical(lines)
    assert headers.without_envelope_line(content)[0] == kept


@pytest.mark.parametrize("blanks", [" ", "  ", " \t"])
def test_a_from_with_a_blank_before_its_colon_stays(blanks: str) -> None:
    content = Canonical(f"From{blanks}: Boss <boss@full.example>\r\nA: b\r\n\r\nx".encode())
    assert headers.without_envelope_line(content) == (content, ())
    assert headers.facts(content).header_from == ("boss@full.example",)
