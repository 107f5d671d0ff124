"""STARTTLS, implicit TLS and AUTH by real programs: certificates verified, passwords by argon2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.doors import PASSWORD, USER, Doors
from clients.languages import LIBRARIES, Library, Way, mail, send
from clients.programs import PROGRAMS, Letter, Shell
from clients.sink import Sink, recipients

SENDER = "shop@example.net"
FREE = "shop@free.example"  # of a domain that no user has to itself


@dataclass(frozen=True)
class Client:
    """A library or a program, by the one question that both answer: is it content, and what does it say?"""

    of: Library | Shell

    def __str__(self) -> str:
        return self.of.name

    def send(self, way: Way, sender: str, to: str, folder: Path) -> tuple[bool, str]:
        if isinstance(self.of, Shell):
            done = self.of.send(way, Letter(sender, (to,)), folder)
            return done.code == 0, done.said
        try:
            (told,) = send(self.of, way, mail(sender, to)).told
        except AssertionError as ended:  # a driver that gives up before its first message
            return False, str(ended)
        return told["ok"], str(told.get("error", ""))

    def to(self, what: str) -> str:
        return f"{what}.{self.of.name.replace('::', '-').lower()}@example.org"


CLIENTS = [Client(of) for of in (*LIBRARIES, *PROGRAMS)]


# Where the answer hardly depends on who asks.
SOME = pytest.mark.parametrize(
    "client", [one for one in CLIENTS if one.of.name in ("smtplib", "PHPMailer", "swaks", "msmtp")], ids=str
)


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    return found


@pytest.mark.parametrize("door", ["starttls", "implicit"])
def test_tls_with_a_password(client: Client, door: str, doors: Doors, sink: Sink, tmp_path: Path) -> None:
    to = client.to(door)
    ok, said = client.send(doors.way(door, user=USER, password=PASSWORD), SENDER, to, tmp_path)
    assert ok, said
    assert recipients(sink.message(to)) == {to}
    queue_id = re.search(rb"\bid (\w+)", sink.message(to).content)
    assert queue_id
    assert doors.ask("show", id=queue_id[1].decode())["user"] == USER


def test_tls_without_a_password(client: Client, doors: Doors, sink: Sink, tmp_path: Path) -> None:
    to = client.to("nobody")
    ok, said = client.send(doors.way("starttls"), FREE, to, tmp_path)
    assert ok, said
    assert recipients(sink.message(to)) == {to}


def test_a_password_is_taken_where_any_is(client: Client, doors: Doors, sink: Sink, tmp_path: Path) -> None:
    to = client.to("any")
    ok, said = client.send(doors.way("any", user="whoever", password="what ever"), FREE, to, tmp_path)
    assert ok, said
    assert recipients(sink.message(to)) == {to}


@SOME
def test_no_mail_without_the_login_that_is_required(client: Client, doors: Doors, tmp_path: Path) -> None:
    ok, said = client.send(doors.way("required"), FREE, "b@example.org", tmp_path)
    assert not ok
    assert "5.7.0" in said


@SOME
def test_a_domain_with_a_user_is_for_that_user(client: Client, doors: Doors, tmp_path: Path) -> None:
    ok, said = client.send(doors.way("plain"), SENDER, "b@example.org", tmp_path)
    assert not ok
    assert "5.7.1" in said


# These start TLS wherever it is offered.
EAGER = {"PHPMailer", "Symfony", "nodemailer", "ActionMailer"}


def test_a_certificate_that_nobody_trusts(client: Client, doors: Doors, tmp_path: Path) -> None:
    """Why STARTTLS is not offered on loopback unless it is asked for."""
    ok, said = client.send(doors.untrusted, FREE, client.to("untrusted"), tmp_path)
    assert ok == (client.of.name not in EAGER), said


# These send without a word where AUTH is not offered; all others give up.
RELAXED = {"Symfony", "nodemailer", "curl"}


def test_a_password_where_none_is_asked_for(client: Client, doors: Doors, tmp_path: Path) -> None:
    """What `auth: any` is for."""
    ok, said = client.send(doors.way("plain", user="whoever", password="what ever"), FREE, client.to("unasked"), tmp_path)
    assert ok == (client.of.name in RELAXED), said


@SOME  # each failure lets the next login from the same address wait longer
def test_a_wrong_password_shows(client: Client, doors: Doors, tmp_path: Path) -> None:
    way = doors.way("implicit", user=f"{client.of.name}@example.net", password="wrong")
    ok, said = client.send(way, SENDER, "b@example.org", tmp_path)
    assert not ok
    assert "5.7.8" in said or "authenticate" in said  # PHPMailer keeps the reply to itself
