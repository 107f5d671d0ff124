"""DANE against a zone that Knot signs and a resolver, Unbound, that validates it; MTA-STS beside it; and what is reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import Bytes, batch, by_address
from dnssec import SignedDns, host, tlsa
from fakes import FakeClock
from policy_host import PolicyHost
from relay_process import Relay, wait_for
from sesrelay.mail.outcome import Deferred, Delivered, Outcome
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport

pytestmark = pytest.mark.peer

ROOT = trustme.CA()
ISSUER = ROOT.create_child_ca()
SELF = trustme.CA().issue_cert("nobody.test")  # of an issuer that nobody knows, for a name that nobody has
ISSUED = ISSUER.issue_cert("mx-ta.example.org")
MISNAMED = ISSUER.issue_cert("other.test")


OWN = SELF.cert_chain_pems[0].bytes()
WRONG = f"3 1 1 {'ab' * 32}"
# By label: the TLSA record of its mail host. A wildcard: tests take what port is free.
HOSTS = {
    "ee": tlsa(3, 1, OWN),
    "eecert": tlsa(3, 0, OWN),
    "ta": tlsa(2, 0, ISSUER.cert_pem.bytes()),
    "takey": tlsa(2, 1, ISSUER.cert_pem.bytes()),
    "wrong": WRONG,
    "unusable": f"1 1 1 {'ab' * 32}",
}
SIGNED = "".join(
    f"{label} MX 10 mx-{label}\nmx-{label} A 127.0.0.1\n*._tcp.mx-{label} TLSA {record}\n" for label, record in HOSTS.items()
) + (
    "none MX 10 mx-none\nmx-none A 127.0.0.1\n"
    f"itself A 127.0.0.1\n*._tcp.itself TLSA {WRONG}\n"
    "alias MX 10 mx-alias\nmx-alias CNAME mx-ee\n"
    "elsewhere MX 10 mx.plain.test.\n"
    f"outside MX 10 mx-outside\nmx-outside CNAME mx.plain.test.\n*._tcp.mx-outside TLSA {tlsa(3, 1, OWN)}\n"
    "bad MX 10 mx-bad\nmx-bad A 127.0.0.1\n_tcp.mx-bad NS dead\ndead A 127.0.0.99\n"
    '_mta-sts.unusable TXT "v=STSv1; id=one"\nmta-sts.unusable A 127.0.0.1\n'
    '_smtp._tls.ee TXT "v=TLSRPTv1; rua=mailto:tls@example.org"\n'
    '_smtp._tls.wrong TXT "v=TLSRPTv1; rua=mailto:tls@example.org"\n'
    '_smtp._tls.unusable TXT "v=TLSRPTv1; rua=mailto:tls@example.org"\n'
    '_smtp._tls.none TXT "v=TLSRPTv1; rua=mailto:tls@example.org"\n'
)
PLAIN = f"@ MX 10 mx\nmx A 127.0.0.1\n*._tcp.mx TLSA {WRONG}\nsigned MX 10 mx-wrong.example.org.\n"


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedDns]:
    zones = {"example.org": SIGNED, "plain.test": PLAIN, "forged.test": "@ MX 10 mx\nmx A 127.0.0.1\n"}
    folder = tmp_path_factory.mktemp("dnssec")
    with SignedDns(folder, zones, plain=frozenset({"plain.test"}), forged=frozenset({"forged.test"})) as found:
        yield found


async def deliver(dns: SignedDns, port: int, domain: str, **options: Any) -> Outcome:
    options.setdefault("tls", "dane")
    out = DirectTransport(
        "direct",
        DirectOptions("relay.example.com", port, nameservers=[dns.nameserver], allow_private_addresses=True, **options),
        FakeClock(now=time.time()),
    )
    message = batch(f"b@{domain}")
    outcome = by_address(message, await out.deliver(message, Bytes()))[f"b@{domain}"]
    await out.close()
    return outcome


@pytest.mark.parametrize(
    ("domain", "leaf", "label"),
    [
        ("ee.example.org", SELF, "dane: verified"),
        ("eecert.example.org", SELF, "dane: verified"),
        ("ta.example.org", ISSUED, "dane: verified"),
        ("alias.example.org", SELF, "dane: verified"),
        ("outside.example.org", SELF, "dane: verified"),  # nobody vouches for the address, but for the alias and its record
        ("unusable.example.org", SELF, "dane: no usable TLSA record"),
        ("none.example.org", SELF, None),
        ("plain.test", SELF, None),  # nobody vouches for its TLSA record
        ("elsewhere.example.org", SELF, None),  # nor for its mail host's address
        ("signed.plain.test", SELF, None),  # nor for the way to its mail host
        ("none.example.org", None, None),
    ],
)
async def test_what_goes_out(dns: SignedDns, domain: str, leaf: trustme.LeafCert | None, label: str | None) -> None:
    async with host(leaf) as there:
        outcome = await deliver(dns, there.port, domain)
        assert isinstance(outcome, Delivered), outcome
        shown = outcome.trail.tls
        assert shown is None if leaf is None else shown is not None and (shown.partition(" (")[2].rstrip(")") or None) == label


@pytest.mark.parametrize(
    ("domain", "leaf", "said"),
    [
        ("ee.example.org", ISSUED, "no TLS with mx-ee.example.org: DANE: the certificate matches no TLSA record"),
        ("ta.example.org", SELF, "no TLS with mx-ta.example.org: DANE: the certificate matches no TLSA record"),
        ("ta.example.org", MISNAMED, "no TLS with mx-ta.example.org: DANE: the certificate does not lead"),
        ("takey.example.org", MISNAMED, "no TLS with mx-takey.example.org: DANE: the certificate does not lead"),
        ("wrong.example.org", SELF, "no TLS with mx-wrong.example.org: DANE: the certificate matches no TLSA record"),
        ("itself.example.org", SELF, "no TLS with itself.example.org: DANE: the certificate matches no TLSA record"),
        ("outside.example.org", ISSUED, "no TLS with mx-outside.example.org: DANE: the certificate matches no TLSA record"),
        ("ee.example.org", None, "no TLS with mx-ee.example.org: the host does not offer STARTTLS"),
        ("unusable.example.org", None, "no TLS with mx-unusable.example.org: the host does not offer STARTTLS"),
        ("bad.example.org", SELF, "no TLS with mx-bad.example.org: DANE: its TLSA records cannot be looked up"),
        ("forged.test", SELF, "cannot look up the mail hosts of forged.test"),
    ],
)
async def test_what_waits(dns: SignedDns, domain: str, leaf: trustme.LeafCert | None, said: str) -> None:
    async with host(leaf) as there:
        outcome = await deliver(dns, there.port, domain, dns_lifetime=2.0 if domain.startswith("bad") else 15.0)
        assert isinstance(outcome, Deferred), outcome
        assert outcome.reply.text.startswith(said)
        assert there.said("MAIL") == []


async def test_mta_sts_makes_nothing_good_that_dane_refuses(dns: SignedDns) -> None:
    async with host(SELF) as there:
        assert isinstance(await deliver(dns, there.port, "wrong.example.org", tls="mta-sts"), Deferred)
        assert isinstance(await deliver(dns, there.port, "ee.example.org", tls="mta-sts"), Delivered)
        assert isinstance(await deliver(dns, there.port, "wrong.example.org", tls="opportunistic"), Delivered)


async def test_records_that_nobody_can_use_do_not_weaken_a_policy(dns: SignedDns, tmp_path: Path) -> None:
    ROOT.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    policy = "version: STSv1\nmode: enforce\nmx: mx-unusable.example.org\nmax_age: 86400\n"
    right = ROOT.issue_cert("mx-unusable.example.org")
    async with PolicyHost(ROOT, names=("mta-sts.unusable.example.org",), body=policy) as web:
        for leaf, kind in ((SELF, Deferred), (right, Delivered)):
            async with host(leaf) as there:
                outcome = await deliver(
                    dns, there.port, "unusable.example.org", tls="mta-sts", ca_file=tmp_path / "ca.pem", policy_port=web.port
                )
                assert isinstance(outcome, kind), outcome
    assert outcome.trail.tls is not None and outcome.trail.tls.endswith(" (mta-sts enforce: verified)")


async def test_the_collector_is_told(dns: SignedDns, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(str(tmp_path / "tlsrpt"))
        collector.settimeout(5)

        async def told(leaf: trustme.LeafCert | None, label: str) -> Any:
            async with host(leaf) as there:
                await deliver(dns, there.port, f"{label}.example.org", tlsrpt_socket=tmp_path / "tlsrpt")
            return json.loads(collector.recv(65536))

        record = "v=TLSRPTv1; rua=mailto:tls@example.org"
        assert await told(SELF, "ee") == {
            "dpv": "1", "d": "ee.example.org", "pr": record,
            "policies": [{"policy-type": 1, "policy-domain": "mx-ee.example.org", "policy-string": [HOSTS["ee"]], "t": 0, "f": 0}],
        }  # fmt: skip
        found = await told(SELF, "wrong")
        (policy,) = found["policies"]
        assert (policy["policy-type"], policy["policy-string"], policy["t"], policy["f"]) == (1, [WRONG], 1, 1)
        (details,) = policy["failure-details"]
        assert (details["c"], details["n"], details["r"], details["s"]) == (205, "mx-wrong.example.org", "127.0.0.1", "127.0.0.1")
        assert "matches no TLSA record" in details["f"]
        (policy,) = (await told(None, "ee"))["policies"]
        assert policy["failure-details"][0]["c"] == 201
        for leaf, code in ((SELF, 304), (None, 201)):
            (policy,) = (await told(leaf, "unusable"))["policies"]
            assert (policy["policy-type"], policy["f"], policy["failure-details"][0]["c"]) == (1, 1, code)
        (policy,) = (await told(SELF, "none"))["policies"]
        assert policy == {"policy-type": 9, "policy-domain": "none.example.org", "t": 0, "f": 0}
        (policy,) = (await told(None, "none"))["policies"]
        assert policy["failure-details"][0]["c"] == 201
        collector.setblocking(False)
        async with host(SELF) as there:  # a domain that asks for no reports
            await deliver(dns, there.port, "eecert.example.org", tlsrpt_socket=tmp_path / "tlsrpt")
        with pytest.raises(BlockingIOError):
            collector.recv(65536)


async def test_a_real_collector_takes_it(dns: SignedDns, tmp_path: Path) -> None:
    """tlsrpt-collectd, which Postfix's reports go to."""
    there, store, log = tmp_path / "tlsrpt", tmp_path / "store.sqlite", tmp_path / "log"
    options = {"storage": f"sqlite://{store}", "socketname": there, "logfilename": log, "sockettimeout": 1, "log_level": "warning"}
    words = [f"--{key}={value}" for key, value in {**options, "pidfilename": "", "socketuser": "", "socketgroup": ""}.items()]
    collectd = subprocess.Popen([Path(sys.executable).with_name("tlsrpt-collectd"), *words])
    try:
        # as it starts it puts its store away as yesterday's and makes another: who reads meanwhile takes that one's journal for a dead writer's
        await asyncio.to_thread(wait_for, "the collector", lambda: there.exists() and any(tmp_path.glob("*yesterday*")))
        for label in ("ee", "wrong"):
            async with host(SELF) as mail_host:
                await deliver(dns, mail_host.port, f"{label}.example.org", tlsrpt_socket=there)

        def stored(query: str) -> list[Any]:
            with contextlib.closing(sqlite3.connect(store)) as database:
                return database.execute(query).fetchall()

        totals = "SELECT domain, cntrtotal, cntrfailure FROM finalresults ORDER BY domain"

        def both() -> bool:
            with contextlib.suppress(sqlite3.OperationalError):  # not set up yet
                return len(stored(totals)) == 2
            return False

        await asyncio.to_thread(wait_for, "both results", both)
        collectd.kill()
        collectd.wait()
        assert stored(totals) == [("ee.example.org", 1, 0), ("wrong.example.org", 1, 1)]
        ((reason,),) = stored("SELECT reason FROM failures")
        assert json.loads(reason)["n"] == "mx-wrong.example.org"
        assert log.read_text() == ""
    finally:
        collectd.kill()
        collectd.wait()


async def test_no_collector_holds_up_no_mail(dns: SignedDns, tmp_path: Path) -> None:
    async with host(SELF) as there:
        assert isinstance(await deliver(dns, there.port, "ee.example.org", tlsrpt_socket=tmp_path / "nobody"), Delivered)


async def test_the_real_process_shows_it_in_trace(dns: SignedDns, tmp_path: Path) -> None:
    async with host(SELF) as there:
        more = (
            f"transports: {{direct: {{type: direct, port: {there.port}, nameservers: ['{dns.nameserver}'], "
            "allow_private_addresses: true, tls_policy: {'*.example.org': dane}}}\nqueue: {retry: [1h]}"
        )

        def run() -> tuple[Any, Any]:
            with Relay(tmp_path, more) as relay:
                sent = relay.submit("a@example.com", "b@ee.example.org")
                relay.ended(sent)
                refused = relay.submit("a@example.com", "b@wrong.example.org")
                return relay.trace(sent), _first_attempt(relay, refused)

        traced, attempt = await asyncio.to_thread(run)
        (event,) = (one for one in traced["events"] if one["event"] == "attempt")
        assert event["tls"].startswith("TLSv1.3 TLS_") and event["tls"].endswith(" (dane: verified)")
        assert attempt["outcome"] == "deferred"
        assert "DANE: the certificate matches no TLSA record" in attempt["reply"]


def _first_attempt(relay: Relay, queue_id: str) -> Any:
    return wait_for("an attempt", lambda: next((one for one in relay.trace(queue_id)["events"] if one["event"] == "attempt"), None))
