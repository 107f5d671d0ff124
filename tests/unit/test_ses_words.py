"""SES's own words are told from what it repeats, and who is not verified is found in the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import processor_time
from sesrelay.policy.ses_words import addresses_named, not_verified, own_words, region_named, repeated_fields

LIST = "Email address is not verified. The following identities failed the check in region US-EAST-1: "
DENIED = "User `arn:aws:iam::1:user/tenant-mailer' is not authorized to perform `ses:SendRawEmail' on resource `arn:aws:ses:x:1:identity/tag.example'"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (LIST + 'tenant@a.example, "a: tag"@b.example', LIST + "…"),
        ("Illegal address 'tag@foo..bar'", "Illegal address '…"),
        ("Illegal address: header@", "Illegal address: …"),
        ("Illegal address '\"x' tenant 'y\"@b.example'.", "Illegal address '…."),
        ("Invalid domain name: 'content-x.example'.", "Invalid domain name: '…."),
        ("Mail from domain tenant.example is not verified", "Mail from domain … is not verified"),
        ("Invalid header value 'it's a tenant'.", "Invalid header value '…."),
        ("Invalid header value 'a tenant", "Invalid header value '…"),
        ('In parameter list <; a="tenant">, expected parameter value, got "tag"', "In parameter list <…>, expected parameter value, got …"),
        ("Configuration set <tenant> does not exist.", "Configuration set <…> does not exist."),
        ("Configuration set `tenant` does not exist.", "Configuration set `… does not exist."),
        ("User `arn:aws:iam::1:user/u' is not authorized to perform `ses:X' on it", "User `… is not authorized to perform `… on it"),
        (DENIED, "User `… is not authorized to perform `… on resource `…"),
        ("User: arn:aws:iam::1:user/tenant is not authorized", "User: arn:… is not authorized"),
        ("Value 'tenant@x' at 'tags.1.member.value' failed to satisfy constraint", "Value '… at 'tags failed to satisfy constraint"),
    ],
)  # fmt: skip
def test_what_is_repeated_is_taken_out(text: str, own: str) -> None:
    assert own_words(text) == own


@pytest.mark.parametrize(
    "text",
    [
        "Sending suspended for this account.For more information, please check the inbox of the email address.",
        "'Sending suspended for this account.'",
        "The account's sending isn't enabled: it's paused.",
        "Message length is more than 10485760 bytes long.",
        "Tenant x is not associated",
    ],
)
def test_what_ses_says_itself_stays(text: str) -> None:
    assert own_words(text) == text


@given(st.text(max_size=40))
def test_no_list_of_identities_says_anything(named: str) -> None:
    assert own_words(LIST + named) == LIST + "…"


@pytest.mark.parametrize("piece", ["a", '\\"', " 'a", "duplicate ", "header ", "<a", "duplicate header <a"])
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    text = piece * (250_000 // len(piece))
    with processor_time.limited(20):  # linear is seconds, quadratic minutes
        assert own_words(text)
        assert not repeated_fields(text, b"")


@pytest.mark.parametrize(
    ("text", "named", "region"),
    [
        (LIST + '"a: b"@x.net, Me <A@Bücher.example>.', {'"a: b"@x.net', "a@xn--bcher-kva.example"}, "us-east-1"),
        (LIST + "o'brien@x.net", {"o'brien@x.net"}, "us-east-1"),
        ('Email address is not verified: "a: b"@x.net', {'"a: b"@x.net'}, None),
        ("Email address is not verified.", set(), None),
    ],
)
def test_who_is_not_verified_is_found(text: str, named: set[str], region: str | None) -> None:
    assert (not_verified(text), region_named(text)) == (named, region)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Illegal address: B@example.org.", {"b@example.org"}),
        ("Illegal address:b@example.org", {"b@example.org"}),
        ("Illegal address b@example.org, c@example.org", {"b@example.org", "c@example.org"}),
        ("Illegal address '<b@example.org>'.", {"b@example.org"}),
        ("Illegal address [b@example.org]", {"b@example.org"}),
        ("Illegal address 'o'brien@example.org'", {"o'brien@example.org"}),
        ("in user name: '<\"re:ceiver\"@example.org>'.", {'"re:ceiver"@example.org'}),
        ("in user name: '<\"a b@example.org c\"@example.net>'.", {'"a b@example.org c"@example.net'}),
        ('Illegal address "b@example.org"', {"b@example.org"}),
        ("Illegal address 'b@example.org.uk'", {"b@example.org.uk"}),
        ("Illegal address 'B@Bücher.example.'", {"b@xn--bcher-kva.example"}),
        ("Missing final '@domain'", set()),
        ("Invalid email address .", set()),
    ],
)  # fmt: skip
def test_addresses_are_named_as_a_whole(text: str, named: set[str]) -> None:
    assert addresses_named(text) == named


HEAD = b"From: a@x\r\nX-A: 1\r\nX-B: 1\r\nx-a: 2\r\nX-B: 2\r\nReceived: by x\r\nReceived: by y\r\nTo: b@x\r\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Duplicate header 'X-A'.", {"x-a"}),
        ("Transaction failed: Duplicate header 'X-A'.", {"x-a"}),
        ("Duplicate header: X-A", {"x-a"}),
        ("Duplicate header: X-A.", {"x-a"}),
        ("Duplicate header:x-a", {"x-a"}),
        ("Duplicate header X-A", {"x-a"}),
        ("Duplicate header 'X-A' was found in the message, remove one of them.", {"x-a"}),
        ("Duplicate header \"X-A\" (RFC 5322)", {"x-a"}),
        ("Duplicate header ‘X-A’.", {"x-a"}),
        ("Duplicate header <X-A>.", {"x-a"}),
        ("Duplicate headers: X-A, X-B", {"x-a", "x-b"}),
        ("The message contains more than one X-A header", {"x-a"}),
        ("Multiple 'X-A' headers are not allowed.", {"x-a"}),
        ("Only one X-A header is allowed.", {"x-a"}),
        ("Header 'X-A' appears more than once.", {"x-a"}),
        ("The header X-A is duplicated.", {"x-a"}),
        ("Duplicated header field X-A", {"x-a"}),
        ("The field X-A occurs multiple times in the header", {"x-a"}),
        ("Duplicate header 'Received'.", {"received"}),
        ("Duplicate header.", {"x-a", "x-b"}),
        ("The message has duplicate headers", {"x-a", "x-b"}),
        ("Duplicate header 'To'.", {"x-a", "x-b"}),
        ("Illegal header value 'Duplicate header: X-A'.", set()),
        ("Illegal header 'more than one X-A header'.", set()),
        ("Illegal address: duplicate@header.x-a.example", set()),
        ("In parameter list <; a=\"duplicate header\">, expected parameter value, got duplicate header X-A", set()),
        ("More than one address in 'To'.", set()),
        ("Header section too long.", set()),
        ("", set()),
    ],
)  # fmt: skip
def test_what_stands_twice_is_found_by_what_ses_says_and_what_the_message_has(text: str, names: set[str]) -> None:
    assert repeated_fields(text, HEAD) == names


def test_nothing_is_repeated_in_a_message_that_repeats_nothing() -> None:
    assert repeated_fields("Duplicate header 'From'.", b"From: a@x\r\nReceived: by x\r\nReceived: by y\r\n") == frozenset()
