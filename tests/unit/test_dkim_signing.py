"""What `direct` and `smtp` sign on its way out: the octets that arrive verify, and what cannot be signed does not leave."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path
from typing import Any

import dkim
import pytest

import peers
from batches import Bytes, batch, by_address
from fakes import FakeClock
from scripted_host import ScriptedHost
from sesrelay.config.dkim_keys import SigningKey, generate
from sesrelay.mail.dkim import DkimKey, record
from sesrelay.mail.outcome import Deferred, Delivered, PauseReason, Scope
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

RSA, ED25519 = generate("rsa")[1], generate("ed25519")[1]
MADE = {"r": RSA, "e": ED25519}
AWKWARD = (
    b"From: A <a@example.com>\r\nTo: b@example.org\r\nSubject: dots,\r\n\tlong lines and octets\r\n\r\n"
    b".\r\n..two\r\n" + b"x" * 3000 + b"\r\n\xe4\xf6 \t \r\n\r\n.\r\n\r\n"
)


def key(made: SigningKey, selector: str, domain: str = "example.com") -> DkimKey:
    return DkimKey(domain, selector, made.algorithm, made.sign)


BOTH = {"example.com": (key(RSA, "r"), key(ED25519, "e"))}


def lookup(name: bytes, timeout: float = 5) -> bytes:
    made = MADE[name.decode().partition(".")[0]]
    return record(made.algorithm, made.public).encode()


async def deliver(host: ScriptedHost, *, direct: bool, dkim: Any, content: bytes = AWKWARD, **message: Any) -> Any:
    clock = FakeClock(now=1_700_000_000.0)
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns:
        out: DirectTransport | SmtpTransport
        if direct:
            options = DirectOptions(
                "relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True, dkim=dkim
            )
            out = DirectTransport("direct", options, clock)
        else:
            out = SmtpTransport("relay", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port, dkim=dkim), clock)
        one = batch(**message)
        found = by_address(one, await out.deliver(one, Bytes(content)))
        await out.close()
        return found["b@example.org"]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "smtp"])
async def test_what_arrives_verifies_by_both_keys(direct: bool) -> None:
    async with ScriptedHost() as host:
        outcome = await deliver(host, direct=direct, dkim=BOTH)
        assert isinstance(outcome, Delivered)
        assert outcome.trail.changes[0].startswith("encoded as quoted-printable")  # signed after that
        assert outcome.trail.changes[1:] == (
            "added DKIM-Signature d=example.com s=r rsa-sha256",
            "added DKIM-Signature d=example.com s=e ed25519-sha256",
        )
        arrived = host.messages[0].content
        assert message_from_bytes(arrived).get_payload(decode=True) == AWKWARD.partition(b"\r\n\r\n")[2]
        assert [dkim.DKIM(arrived).verify(idx=index, dnsfunc=lookup) for index in (0, 1)] == [True, True]


PERL = r"""
use strict; use warnings;
use Mail::DKIM::Verifier;
my %record = (%RECORDS%);
{ no warnings 'redefine';
  *Mail::DKIM::PublicKey::fetch_async = sub {
    my ($class, %prms) = @_;
    my $key = $class->parse($record{$prms{Selector}});
    $key->{Selector} = $prms{Selector}; $key->{Domain} = $prms{Domain};
    my $done = $prms{Callbacks}->{Success};
    return sub { return $done->($key) };
  };
}
binmode STDIN;
my $verifier = Mail::DKIM::Verifier->new();
$verifier->load(\*STDIN);
print join("\n", map { $_->domain . " " . $_->algorithm . " " . $_->result } $verifier->signatures), "\n";
"""


@pytest.mark.peer
async def test_another_implementation_verifies_it(tmp_path: Path) -> None:
    """Mail::DKIM, which SpamAssassin and amavis use."""
    perl = peers.require("perl")
    env = peers.environment()
    if subprocess.run(perl.command("-MMail::DKIM::Verifier", "-e", "1"), env=env, check=False, capture_output=True).returncode:
        peers.missing("Mail::DKIM is not here: `make test` unpacks it where apt and a network are")
    async with ScriptedHost() as host:
        assert isinstance(await deliver(host, direct=True, dkim={"example.com": (key(RSA, "r"),)}), Delivered)
        arrived = host.messages[0].content
    records = ", ".join(f"{name} => '{record(made.algorithm, made.public)}'" for name, made in MADE.items())
    script = tmp_path / "verify.pl"
    script.write_text(PERL.replace("%RECORDS%", records))
    for content, said in ((arrived, "pass"), (arrived.replace(b"..two", b"..too"), "fail")):
        done = subprocess.run(perl.command(script), env=env, input=content, capture_output=True, check=True)
        assert done.stdout.decode().split("\n")[0] == f"example.com rsa-sha256 {said}", done.stderr


@pytest.mark.peer
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "smtp"])
async def test_a_third_implementation_verifies_both_keys(tmp_path: Path, direct: bool) -> None:
    """OpenDKIM, which Postfix and Sendmail are used with: it knows Ed25519 too, and is told the records by a file."""
    opendkim = peers.require("opendkim")
    async with ScriptedHost() as host:
        assert isinstance(await deliver(host, direct=direct, dkim=BOTH), Delivered)
        arrived = host.messages[0].content
    records, config, message = (tmp_path / name for name in ("records", "opendkim.conf", "message.eml"))
    records.write_text(
        "".join(f"{name}._domainkey.example.com {record(made.algorithm, made.public)}\n" for name, made in MADE.items())
    )
    config.write_text(f"Mode v\nTestPublicKeys {records}\nAlwaysAddARHeader yes\nAuthservID judge.example\nRequireSafeKeys no\n")
    for content, said in (
        (arrived, "pass"),
        (arrived.replace(b"..two", b"..too"), "fail"),
        (arrived.replace(b"dots,", b"Dots,"), "fail"),
    ):
        message.write_bytes(content)
        done = subprocess.run(
            opendkim.command("-t", message, "-x", config, "-vvv"), env=opendkim.env, capture_output=True, text=True, check=False
        )
        verdicts = re.findall(r"dkim=(\w+) .*?header\.a=(\S+)", done.stdout)
        assert verdicts == [(said, "rsa-sha256"), (said, "ed25519-sha256")], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("sender", "header_from", "signed_by"),
    [
        ("a@example.com", ["a@example.com"], "example.com"),
        ("bounces@elsewhere.example", ["a@Example.COM"], "example.com"),
        ("a@example.com", ["a@unsigned.example"], "example.com"),
        ("", ["mailer-daemon@example.com"], "example.com"),
        ("a@sub.example.com", ["a@sub.example.com"], None),
        ("a@other.example", [], None),
        ("a@xn--bcher-kva.example", ["a@bücher.example"], "xn--bcher-kva.example"),
    ],
)
async def test_whose_key_signs(sender: str, header_from: Sequence[str], signed_by: str | None) -> None:
    keys = {domain: (key(ED25519, "e", domain),) for domain in ("example.com", "xn--bcher-kva.example")}
    async with ScriptedHost() as host:
        outcome = await deliver(host, direct=True, dkim=keys, sender=sender, header_from=header_from)
        assert isinstance(outcome, Delivered)
        arrived = host.messages[0].content
        assert (b"DKIM-Signature:" in arrived) is (signed_by is not None)
        assert signed_by is None or f"d={signed_by};".encode() in arrived


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "smtp"])
async def test_what_cannot_be_signed_waits(direct: bool) -> None:
    def broken(data: bytes) -> bytes:
        raise ValueError("the key is of no use")

    keys = {"example.com": (key(RSA, "r"), DkimKey("example.com", "e", "ed25519-sha256", broken))}
    async with ScriptedHost() as host:
        outcome = await deliver(host, direct=direct, dkim=keys)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION)
        assert outcome.reply.text == "cannot sign mail of example.com: the key is of no use"
        assert "dkim" in outcome.remedy
        assert host.messages == []
        assert host.said("MAIL") == []


async def test_signing_happens_off_the_loop() -> None:
    where: list[bool] = []

    def watched(data: bytes) -> bytes:
        where.append(threading.current_thread() is threading.main_thread())
        return ED25519.sign(data)

    async with ScriptedHost() as host:
        keys = {"example.com": (DkimKey("example.com", "e", "ed25519-sha256", watched),)}
        assert isinstance(await deliver(host, direct=True, dkim=keys), Delivered)
    assert where == [False]


async def test_a_header_that_nothing_ends_is_ended_before_it_is_signed() -> None:
    """Else receivers would differ on where the body begins."""
    async with ScriptedHost() as host:
        outcome = await deliver(host, direct=True, dkim=BOTH, content=b"From: a@example.com\r\nno field at all\r\n")
        assert isinstance(outcome, Delivered)
        arrived = host.messages[0].content
        assert arrived.endswith(b"From: a@example.com\r\n\r\nno field at all\r\n")
        assert dkim.DKIM(arrived).verify(idx=1, dnsfunc=lookup)
