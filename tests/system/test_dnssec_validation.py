"""Whether the name servers do what DANE rests on: looked at by doctor, and at the start of a relay that asks for DANE."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aws_world import sesrelay
from batches import unused_port
from dnssec import SignedDns
from fakes import FakeClock
from relay_process import Relay, wait_for
from sesrelay.transport.exchangers.mx import MailHosts
from sesrelay.transport.exchangers.validation import RUN_ONE, Validation, validation
from small_dns import SmallDns


async def found(*nameservers: str) -> Validation:
    return await validation(MailHosts(FakeClock(), nameservers, 2.0))


async def test_a_resolver_that_does_not_validate() -> None:
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns:
        looked = await found(dns.nameserver)
    assert looked == Validation(
        False, f"{dns.nameserver} does not validate DNSSEC: even its answer for the root has no AD flag", RUN_ONE
    )


async def test_nobody_there() -> None:
    looked = await found(f"127.0.0.1:{unused_port()}")
    assert (looked.sound, looked.remedy) == (None, "check that it answers for the root: dig +dnssec . NS")


@pytest.mark.parametrize(
    ("system", "counts"),
    [(["127.0.0.53"], True), (["::1", "127.0.0.1"], True), (["127.0.0.1", "192.0.2.1"], False), (["fe80::1%eth0"], False)],
)
def test_whose_word_counts(system: list[str], counts: bool) -> None:
    hosts = MailHosts(FakeClock())
    hosts.resolver.nameservers = system
    assert (hosts.trusted, hosts.on_this_host) == (counts, counts)
    named = MailHosts(FakeClock(), ["192.0.2.1", "[2001:db8::1]:5353", "192.0.2.2:54"])
    assert (named.trusted, named.on_this_host) == (True, False)
    assert named.servers == ("192.0.2.1", "[2001:db8::1]:5353", "192.0.2.2:54")


async def test_the_systems_own_elsewhere_is_not_even_asked() -> None:
    hosts = MailHosts(FakeClock())
    hosts.resolver.nameservers = ["192.0.2.1"]
    looked = await validation(hosts)
    assert (looked.sound, looked.remedy) == (False, RUN_ONE)
    assert looked.message == "192.0.2.1 is not on this host, so its DNSSEC answers cannot be trusted"


def config(tmp_path: Path, nameserver: str, tls: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"hostname: mail.host.test\nstate_dir: {tmp_path}/state\n"
        'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\nlimits: {min_free_disk: 1MiB}\n'
        f"transports: {{direct: {{type: direct, source_address: 127.0.0.1, allow_private_addresses: true, nameservers: ['{nameserver}'], tls_policy: {{example.org: {tls}}}}}}}\n"
        "default_route: {transport: direct}\n"
    )
    return path


def said_of_dnssec(path: Path) -> list[tuple[str, str | None]]:
    said = sesrelay("doctor", "--json", "--config", path)
    return [(one["status"], one["remedy"]) for one in said.json["checks"] if one["check"] == "dnssec"]


async def test_doctor_says_so_where_a_policy_wants_it(tmp_path: Path) -> None:
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns:
        wanted = {"dane": [("fail", RUN_ONE)], "mta-sts": [("warn", RUN_ONE)], "required": []}
        for tls, expected in wanted.items():
            assert await asyncio.to_thread(said_of_dnssec, config(tmp_path, dns.nameserver, tls)) == expected
    assert await asyncio.to_thread(said_of_dnssec, config(tmp_path, f"127.0.0.1:{unused_port()}", "dane")) == [
        ("warn", "check that it answers for the root: dig +dnssec . NS")
    ]


def logged(relay: Relay) -> dict[str, str] | None:
    for line in relay.log.read_text().splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if "tls: dane" in line:
            return dict(said)
    return None


def started(tmp_path: Path, nameserver: str) -> dict[str, str]:
    """Return what a relay says of DNSSEC when it starts."""
    tmp_path.mkdir(exist_ok=True)
    more = f"transports: {{direct: {{type: direct, nameservers: ['{nameserver}'], tls: dane}}}}\n"
    with Relay(tmp_path, more) as relay:
        return wait_for("a word on it", lambda: logged(relay))


async def test_the_log_says_so_at_the_start(tmp_path: Path) -> None:
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns:
        said = await asyncio.to_thread(started, tmp_path, dns.nameserver)
    assert "does not validate DNSSEC" in json.dumps(said)
    assert RUN_ONE in said.values()


@pytest.mark.peer
async def test_a_resolver_that_validates(tmp_path: Path) -> None:
    with SignedDns(tmp_path, {".": "", "example.org": "@ MX 10 mx\n"}) as dns:
        looked = await found(dns.nameserver)
        assert looked == Validation(True, f"{dns.nameserver} on this host validates DNSSEC")
        path = config(tmp_path, dns.nameserver, "dane")
        assert await asyncio.to_thread(said_of_dnssec, path) == [("ok", None)]
        said = await asyncio.to_thread(started, tmp_path / "relay", dns.nameserver)
        assert "on this host validates DNSSEC" in json.dumps(said)
