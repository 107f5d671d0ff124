"""SES's own words are told from what it repeats, and who is not verified is found in the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.policy.ses_words import not_verified, own_words, region_named

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


@pytest.mark.timeout(20)  # linear is seconds, quadratic minutes
@pytest.mark.parametrize("piece", ["a", '\\"', " 'a"])
def test_a_long_text_costs_no_more_than_its_length(piece: str) -> None:
    assert own_words(piece * (250_000 // len(piece)))


@pytest.mark.parametrize(
    ("text", "named", "region"),
    [
        (LIST + '"a: b"@x.net, Me <A@b.example>.', ('"a: b"@x.net', "A@b.example"), "us-east-1"),
        (LIST + "o'brien@x.net", ("o'brien@x.net",), "us-east-1"),
        ('Email address is not verified: "a: b"@x.net', ('"a: b"@x.net',), None),
        ("Email address is not verified.", (), None),
    ],
)
def test_who_is_not_verified_is_found(text: str, named: tuple[str, ...], region: str | None) -> None:
    assert (not_verified(text), region_named(text)) == (named, region)
