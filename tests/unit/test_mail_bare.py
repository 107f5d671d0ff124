"""Names without a domain: completed where a list is read alike by everybody, and authors where it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import processor_time
from sesrelay.mail import bare, headers
from sesrelay.mail.authors import authors
from sesrelay.mail.mailboxes import mailboxes

DOMAIN = "host.example"


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("root, a@b.example", "root@host.example, a@b.example"),
        ("a@b.example,root", "a@b.example,root@host.example"),
        ("root (a@b.example)", "root@host.example (a@b.example)"),
        ("(a@b.example) root", "(a@b.example) root@host.example"),
        ('"a@b" <root>', '"a@b" <root@host.example>'),
        ('"a, b" <root>, "c:d" <a@b.example>', '"a, b" <root@host.example>, "c:d" <a@b.example>'),
        ("Boss <root>, a@b.example", "Boss <root@host.example>, a@b.example"),
        ("Boss < root >, a@b.example", "Boss < root@host.example >, a@b.example"),
        ("=?utf-8?q?J=C3=B6rg?= <root>, <a@b.example>", "=?utf-8?q?J=C3=B6rg?= <root@host.example>, <a@b.example>"),
        ("Jörg <root>, a@b.example", "Jörg <root@host.example>, a@b.example"),
        ("grp: root;", "grp: root@host.example;"),
        ("The group:root,\r\n\tBob <bob>, a@b.example;, ann", "The group:root@host.example,\r\n\tBob <bob@host.example>, a@b.example;, ann@host.example"),
        ('"root"', '"root"@host.example'),
        ("(a (nested\\)) one: @) root(x), a@[192.0.2.1]", "(a (nested\\)) one: @) root@host.example(x), a@[192.0.2.1]"),
        (",, root ,\r\n a@b.example", ",, root@host.example ,\r\n a@b.example"),
        ("first.last+tag, a@b.example", "first.last+tag@host.example, a@b.example"),
        ("root, b@c.example,\r\n\tx <y>", "root@host.example, b@c.example,\r\n\tx <y@host.example>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["From", "Sender", "Reply-To", "To", "Cc", "cC"])
def test_each_name_without_a_domain_is_completed_and_nothing_else_changed(name: str, value: str, made: str) -> None:
    head = f"X: y\r\n{name}: {value}\r\nFrom: a@b.example\r\n".encode()
    assert headers.facts(head).unqualified
    assert headers.completed(head, DOMAIN, "") == (head.replace(value.encode(), made.encode(), 1), (f"completed {name}",))


@pytest.mark.parametrize(
    "value",
    [
        "root;",
        "root; a@b.example",
        "a@b.example; root",
        "grp: root",
        "grp: root; a@b.example",
        "a: b: root;;",
        ": root;",
        "root a@b.example, bob",
        "two words, a@b.example",
        '"two words", a@b.example',
        '"a@b"',
        '"a"root, a@b.example',
        "ro(x)ot, a@b.example",
        "root., a@b.example",
        "Jörg, a@b.example",
        "=?utf-8?q?root?=, a@b.example",
        "<root, a@b.example",
        "root>, a@b.example",
        "<root> a@b.example",
        "Boss <root> <a@b.example>",
        '"unclosed <root>, a@b.example',
        "(unclosed <root>, a@b.example",
        "root\\, a@b.example",
        "root), a@b.example",
        "root\x0b, a@b.example",
        "[root], a@b.example",
        "<@relay.example:root>",
    ],
)
def test_a_list_too_odd_stays_as_it_is_and_its_names_are_authors(value: str) -> None:
    head = f"From: {value}\r\n".encode()
    assert headers.completed(head, DOMAIN, "") == (head, ())
    assert any(author.endswith((f"@{DOMAIN}", "@relay.example")) for author in authors(head, DOMAIN))


@pytest.mark.parametrize(
    "value",
    [
        "a@b.example",
        "Ann <a@b.example>",
        '"Ann, of B" <a@b.example>, c@d.example',
        '"Ann \\"root\\" B" <a@b.example>',
        "Ann (root) <a@b.example>",
        "Ann (root <a@b.example>",
        'Ann "root <a@b.example>',
        "a@b.example,\r\n\tBob <c@d.example>",
        "Group: a@b.example, Bob <c@d.example>;",
        "undisclosed-recipients:;",
        "The [root] shop <a@b.example>",
        "The shop: root <a@b.example>",
        "root a@b.example",
        "boss@d.example <a@b.example>",
        "Jörg <a@b.example>",
        "=?utf-8?q?root?= <a@b.example>",
        "=?utf-8?q?a=40b=2Eexample?=",
        "<>",
        ",",
        "",
    ],
)
def test_where_every_address_has_its_domain_nothing_changes_and_nobody_joins(value: str) -> None:
    head = f"From: {value}\r\nTo: {value}\r\n".encode()
    assert headers.completed(head, DOMAIN, "") == (head, ())
    assert not [author for author in authors(head, DOMAIN) if author.endswith(f"@{DOMAIN}")]


def test_an_ordinary_message_is_not_looked_at_again() -> None:
    head = b'From: "Ann, of B" <a@b.example>\r\nTo: c@d.example,\r\n\tEve <e@f.example>\r\nCc: J\xc3\xb6rg <g@h.example>\r\nReply-To:\r\n'
    assert not headers.facts(head).unqualified


def test_names_that_were_not_completed_are_authors_all_the_same() -> None:
    assert authors(b"From: root, a@b.example\r\n", DOMAIN) == ("a@b.example", f"root@{DOMAIN}")
    assert authors(b"From: =?utf-8?q?root?=\r\n", DOMAIN) == (f"root@{DOMAIN}",)
    assert authors(b"From: root, a@b.example\r\n") == ("a@b.example",)


_PIECES = [
    "root",
    "a@b.example",
    "<root>",
    "<a@b.example>",
    "Ann",
    '"q q"',
    '"root"',
    "(c, d)",
    "(@)",
    ",",
    ";",
    ":",
    " ",
    "\r\n ",
    "<",
    ">",
    "@",
]
_LISTS = st.lists(st.sampled_from([*_PIECES, ", ", ", ", ", "]), max_size=12).map("".join)


@given(_LISTS)
def test_what_is_completed_reads_as_before_but_for_the_domain(value: str) -> None:
    raw = f" {value}\r\n".encode()
    made = bare.completed(raw, DOMAIN)
    assert made.replace(f"@{DOMAIN}".encode(), b"") == raw
    if made != raw:
        before, after = ([(name, address.replace('"', "")) for name, address in _read(each)] for each in (raw, made))
        assert after == [(name, address if "@" in address or not address else f"{address}@{DOMAIN}") for name, address in before]


@given(_LISTS)
def test_no_name_that_a_lenient_reader_finds_passes_for_nobody(value: str) -> None:
    raw = f" {value}\r\n".encode()
    head = b"From:" + bare.completed(raw, DOMAIN)
    assume(not re.search(r"@[^,;:<>]*@", value.replace("(c, d)", "")))  # what follows a first @ has a domain, whatever else it is
    if any(address and "@" not in address for _, address in _read(raw)):
        assert [author for author in authors(head, DOMAIN) if author.endswith((f"@{DOMAIN}", "@")) or author.startswith("@")]


def _read(raw: bytes) -> list[tuple[str, str]]:
    return mailboxes([headers.unfold(raw)])


@pytest.mark.parametrize("piece", ["a,", "a:b,", "a@b,", '"",', "<", "a:;,", "w<w@w>,", "(", "\\", '"a" ', "a;", "@"])
def test_a_monstrous_list_takes_no_monstrous_time(piece: str) -> None:
    with processor_time.limited(20):  # linear is a second, quadratic minutes
        bare.completed(piece.encode() * 200_000 + b"\r\n", DOMAIN)
        authors(b"From: " + piece.encode() * 50_000 + b"\r\n", DOMAIN)
        headers.completed((b"To: " + piece.encode() * (16_000 // len(piece)) + b"\r\n") * 60, DOMAIN, "")
