"""What becomes of recipients that are local or have no domain."""

from __future__ import annotations

from typing import Literal

import pytest

from sesrelay.mail.envelope import Recipient
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail, complete_recipient

ALIASES = dict.fromkeys(("root", "ops+night", "a=b", "größe", '"two words"'), "ops@example.net")
LOCAL = LocalMail("host.example.com", "example.com", ALIASES)


def completed(address: str, local: LocalMail = LOCAL) -> Recipient | Reply:
    return complete_recipient(Recipient(address), local)


@pytest.mark.parametrize(
    ("address", "orcpt"),
    [
        ("root", "rfc822;root@example.com"),
        ("ops+night", "rfc822;ops+2Bnight@example.com"),
        ("a=b@example.com", "rfc822;a+3Db@example.com"),
        ('"two words"', 'rfc822;"two+20words"@example.com'),
        ("größe", r"utf-8;gr\x{F6}\x{DF}e@example.com"),
    ],
)
def test_the_name_before_an_alias_is_said_encoded(address: str, orcpt: str) -> None:
    assert completed(address) == Recipient("ops@example.net", orcpt=orcpt)


def test_the_original_recipient_of_the_client_stays() -> None:
    given = Recipient("ops+night", frozenset({"FAILURE"}), "rfc822;b@example.org")
    assert complete_recipient(given, LOCAL) == Recipient("ops@example.net", given.notify, given.orcpt)


@pytest.mark.parametrize("address", ["postmaster", "Postmaster@host.example.com", "PostMaster@HOST.example.com"])
def test_postmaster_is_always_taken(address: str) -> None:
    local = LocalMail("host.example.com", "host.example.com", unaliased="reject")
    held = completed(address, local)
    assert isinstance(held, Recipient)
    assert (held.address.lower(), held.hold) == ("postmaster@host.example.com", "no_alias")
    assert isinstance(completed("bob", local), Reply)
    assert completed(address) == Recipient("ops@example.net", orcpt=f"rfc822;{address.partition('@')[0]}@example.com")


@pytest.mark.parametrize("address", ['"root"', '"Root"@host.example.com', r'"ro\ot"@example.com', "root@HOST.example.com"])
def test_a_name_is_the_same_with_and_without_quotes(address: str) -> None:
    found = completed(address)
    assert isinstance(found, Recipient)
    assert found.address == "ops@example.net"
    assert (found.orcpt or "").lower() == "rfc822;root@example.com"


def test_quotes_stay_where_they_are_needed() -> None:
    assert completed(r'"two\ words"') == completed('"two words"')
    held = completed(r'"b\ob s"@host.example.com')
    assert isinstance(held, Recipient)
    assert held.address == '"bob s"@example.com'


CHAINED = {
    "root": "Admin@Example.com", "admin": "ops@host.example.com", "ops": "ops@real.example", "carol": "carl@example.com",
    "dave": "dan@host.example.com", "eve": "eve@host.example.com", "erin": "eve@example.com", "frank": "postmaster@example.com",
    "x": "y@example.com", "y": "x@example.com",
}  # fmt: skip


@pytest.mark.parametrize(
    ("address", "end"),
    [
        ("root", "ops@real.example"),
        ("postmaster@host.example.com", "ops@real.example"),
        ("frank", "ops@real.example"),
        ("carol", "carl@example.com"),  # the local domain is a real one, with mailboxes elsewhere
        ("dave", "dan@host.example.com"),  # named, so his mailbox is somewhere
        ("eve", "eve@host.example.com"),
        ("erin", "eve@host.example.com"),
    ],
)
@pytest.mark.parametrize("unaliased", ["hold", "reject"])
def test_aliases_are_followed_to_the_end(address: str, end: str, unaliased: Literal["hold", "reject"]) -> None:
    local = LocalMail("host.example.com", "example.com", CHAINED, unaliased)
    assert completed(address, local) == Recipient(end, orcpt=f"rfc822;{address.partition('@')[0]}@example.com")


def test_root_may_lead_to_the_postmaster_of_the_domain() -> None:
    local = LocalMail("host.example.com", "example.com", {"root": "postmaster@example.com"})
    assert completed("root", local) == Recipient("postmaster@example.com", orcpt="rfc822;root@example.com")


def test_a_circle_ends() -> None:
    found = completed("x", LocalMail("host.example.com", "example.com", CHAINED))
    assert isinstance(found, Recipient)
