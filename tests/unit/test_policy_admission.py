"""What becomes of recipients that are local or have no domain."""

from __future__ import annotations

import pytest

from sesrelay.mail.envelope import Recipient
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail, complete_recipient

ALIASES = {name: "ops@example.net" for name in ("root", "ops+night", "a=b", "größe", '"two words"')}
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
