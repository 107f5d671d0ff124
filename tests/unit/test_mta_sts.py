"""MTA-STS: words, fetching over real HTTPS, and what it makes of real hosts."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import Bytes, batch, by_address
from fakes import FakeClock
from policy_host import PolicyHost
from scripted_host import ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.exchangers.mx import MailHosts
from sesrelay.transport.tls import mta_sts_fetch, tlsrpt
from sesrelay.transport.tls.mta_sts import Policy, PolicyError, parse, record_id, reports_wanted
from sesrelay.transport.tls.mta_sts_cache import Kept, PolicyCache
from sesrelay.transport.tls.mta_sts_fetch import BACKOFF, Policies
from sesrelay.transport.tls.security import Fault
from sesrelay.transport.tls.tlsrpt import Collector
from small_dns import SmallDns

CA = trustme.CA()
STRANGER = trustme.CA()
ENFORCE = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmx: *.mail.example.org\r\nmax_age: 86400\r\n"
TESTING = ENFORCE.replace("enforce", "testing")

# --- words ---


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["v=STSv1; id=20260101T000000;"], "20260101T000000"),
        (["v=STSv1;id=a"], "a"),
        (["v=STSv1; x=y; id=a1 ; z=;"], "a1"),
        (["v=spf1 -all", "v=STSv1; id=a"], "a"),
        (["v=STSv1; id=a", "v=STSv1; id=b"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=a-b"], None),
        (["v=STSv1; id=" + "a" * 33], None),
        (["v=STSv2; id=a"], None),
        (["v=STSv1"], None),
        ([], None),
    ],
)
def test_the_record(texts: list[str], found: str | None) -> None:
    assert record_id(texts) == found


def test_the_record_that_wants_reports() -> None:
    assert reports_wanted(["v=TLSRPTv1; rua=mailto:a@example.org"]) == "v=TLSRPTv1; rua=mailto:a@example.org"
    assert reports_wanted(["v=TLSRPTv1; rua=mailto:a@x", "v=TLSRPTv1; rua=mailto:b@x"]) is None
    assert reports_wanted(["v=TLSRPTv1;"]) is None


def test_a_policy_of_blanks_is_read_in_one_pass() -> None:
    blanks = " " * 2_000_000
    with pytest.raises(PolicyError):
        parse(f"version: STSv1\nmode: enforce\nmax_age: 86400\nmx: a{blanks}b\n")
    assert record_id([f"v=STSv1; x=a{blanks}b; id={blanks}1{blanks};"]) == "1"


def test_a_policy() -> None:
    policy = parse(ENFORCE + "mode: none\r\nunknown: x\r\n\r\n")
    assert policy == Policy("enforce", ("mx.example.org", "*.mail.example.org"), 86400)
    assert parse(ENFORCE.replace("\r\n", "\n")) == policy
    assert parse("version: STSv1\nmode: none\nmax_age: 0\n") == Policy("none", (), 0)
    assert policy.lines[0] == "version: STSv1"
    assert parse("\n".join(policy.lines)) == policy


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("STSv1", "STSv2"), ("version: STSv1\r\n", ""), ("mode: enforce", "mode: on"), ("mode: enforce\r\n", ""), ("max_age: 86400", "max_age: -1"),
        ("max_age: 86400", "max_age: 99999999"), ("max_age: 86400\r\n", ""), ("mx: mx.example.org", "mx mx.example.org"), ("mx: mx", "mx: *mx"), ("mx: mx", "mx: m*."),
    ],
)  # fmt: skip
def test_what_is_no_policy(old: str, new: str) -> None:
    with pytest.raises(PolicyError):
        parse(ENFORCE.replace(old, new))


def test_a_policy_that_names_nobody() -> None:
    with pytest.raises(PolicyError):
        parse("version: STSv1\nmode: enforce\nmax_age: 86400\n")


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mx.example.org", True), ("MX.Example.ORG.", True), ("a.mail.example.org", True), ("a.b.mail.example.org", False), ("mail.example.org", False),
        ("xmx.example.org", False), ("mx.example.org.evil.test", False), ("amail.example.org", False),
    ],
)  # fmt: skip
def test_which_hosts_a_policy_names(host: str, named: bool) -> None:
    assert parse(ENFORCE).names(host) is named


# --- fetching ---

RECORDS = {
    ("example.org", "MX"): ["10 mx.example.org."],
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("mta-sts.example.org", "A"): ["127.0.0.1"],
    ("_mta-sts.example.org", "TXT"): ['"v=STSv1; id=one"'],
}


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    yield path


def policies(
    dns: SmallDns, web: PolicyHost, clock: FakeClock, cache: PolicyCache | None = None, *, private: bool = True
) -> Policies:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return Policies(MailHosts(clock, [dns.nameserver]), clock, cache or PolicyCache(), context, web.port, allow_private=private)


async def test_a_policy_is_fetched_once_and_kept_until_its_id_changes() -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web:
        known = policies(dns, web, clock)
        assert (await known.of("example.org")).policy == parse(ENFORCE)
        assert (await known.of("example.org")).policy == parse(ENFORCE)
        assert web.asked == ["mta-sts.example.org"]
        web.body = TESTING
        dns.records["_mta-sts.example.org", "TXT"] = ['"v=STSv1; id=two"']
        clock.advance(61)  # the record's TTL
        assert (await known.of("example.org")).policy == parse(TESTING)
        assert len(web.asked) == 2


async def test_it_is_fetched_anew_long_before_it_expires() -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web:
        known = policies(dns, web, clock)
        await known.of("example.org")
        clock.advance(43_201)
        await known.of("example.org")
        assert len(web.asked) == 2


async def test_one_fetch_at_a_time_for_a_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0

    async def fetch(self: Policies, domain: str) -> Policy:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return parse(ENFORCE.replace("86400", "0"))  # which is old at once, so that each comer fetches it

    monkeypatch.setattr(Policies, "_fetch", fetch)
    monkeypatch.setattr(mta_sts_fetch, "AGAIN", 0.0)
    async with SmallDns(dict(RECORDS)) as dns:
        known = policies(dns, PolicyHost(CA), FakeClock())
        await known.of("example.org")

        async def again() -> None:
            for _ in range(3):
                await known.of("example.org")

        await asyncio.gather(*(again() for _ in range(3)))
    assert most == 1
    assert not known._locks, "nothing is kept of whom nobody asks about"


@pytest.mark.parametrize("max_age", [0, 1, 60])
async def test_a_policy_that_hardly_holds_is_fetched_once_a_minute(max_age: int) -> None:
    clock = FakeClock()
    policy = ENFORCE.replace("86400", str(max_age))
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=policy) as web:
        known = policies(dns, web, clock)
        for _ in range(5):
            assert (await known.of("example.org")).policy == parse(policy)
            clock.advance(11)
        assert len(web.asked) == 1
        web.body = TESTING
        dns.records["_mta-sts.example.org", "TXT"] = ['"v=STSv1; id=two"']
        clock.advance(6)  # the end of the record's TTL; of the minute there is a rest
        assert (await known.of("example.org")).policy == parse(TESTING)
        web.body, dns.records["_mta-sts.example.org", "TXT"] = policy, ['"v=STSv1; id=three"']
        clock.advance(61)
        assert (await known.of("example.org")).policy == parse(policy)
        del dns.records["_mta-sts.example.org", "TXT"]
        clock.advance(61)  # and no longer than it says where it is announced no more
        assert (await known.of("example.org")).policy is None


async def test_a_record_that_nobody_tells_of_is_not_waited_for_by_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mta_sts_fetch, "PATIENCE", 0.05)
    clock = FakeClock()
    async with SmallDns(dict(RECORDS), silent={"_mta-sts.example.org"}) as dns, PolicyHost(CA, body=ENFORCE) as web:
        known = policies(dns, web, clock)
        known._dns.resolver.lifetime = 2.0
        assert (await known.of("example.org")).policy is None
        known._dns.resolver.lifetime = 60.0
        async with asyncio.timeout(30):
            for _ in range(3):
                assert (await known.of("example.org")).policy is None
        dns.silent.clear()
        assert (await known.of("example.org")).policy == parse(ENFORCE), "it is looked for all the same"
        dns.silent.add("_mta-sts.example.org")
        clock.advance(3_600)
        async with asyncio.timeout(30):  # the policy holds anyway
            assert (await known.of("example.org")).policy == parse(ENFORCE)


@pytest.mark.parametrize("gone", ["record", "dns", "host"])
async def test_what_is_kept_holds_when_all_else_is_gone_and_until_it_expires(gone: str) -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web:
        known = policies(dns, web, clock)
        await known.of("example.org")
        if gone == "record":
            del dns.records["_mta-sts.example.org", "TXT"]
        elif gone == "dns":
            dns.rcodes["_mta-sts.example.org"] = "SERVFAIL"
        else:
            dns.records["_mta-sts.example.org", "TXT"] = ['"v=STSv1; id=two"']
            web.status = 500
        clock.advance(86_000)
        assert (await known.of("example.org")).policy == parse(ENFORCE)
        clock.advance(400)
        assert (await known.of("example.org")).policy is None


async def test_it_outlives_the_daemon(tmp_path: Path) -> None:
    clock, file = FakeClock(), tmp_path / "mta-sts.json"
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web:
        await policies(dns, web, clock, PolicyCache(file)).of("example.org")
        assert PolicyCache(file).get("example.org", clock.wall()) == Kept("one", clock.wall(), parse(ENFORCE))
        assert (await policies(dns, web, clock, PolicyCache(file)).of("example.org")).policy == parse(ENFORCE)
        assert len(web.asked) == 1
    file.write_text('{"example.org": ["one", "x"]}')
    assert PolicyCache(file).get("example.org", clock.wall()) is None


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"status": 404}, Fault.STS_POLICY_FETCH_ERROR),
        ({"status": 301, "headers": {"Location": "/elsewhere"}}, Fault.STS_POLICY_FETCH_ERROR),
        ({"content_type": "text/html"}, Fault.STS_POLICY_INVALID),
        ({"body": "no policy"}, Fault.STS_POLICY_INVALID),
        ({"body": b"\xff"}, Fault.STS_POLICY_INVALID),
        ({"body": ENFORCE + "x: " + "y" * 70_000}, Fault.STS_POLICY_INVALID),
        ({"ca": STRANGER}, Fault.STS_WEBPKI_INVALID),
        ({"names": ("example.org",)}, Fault.STS_WEBPKI_INVALID),
    ],
)
async def test_what_cannot_be_had_is_no_policy_and_is_not_asked_for_again_at_once(wrong: dict[str, Any], fault: Fault) -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(**{"ca": CA, "body": ENFORCE, **wrong}) as web:
        known = policies(dns, web, clock)
        found = await known.of("example.org")
        assert (found.policy, found.fault) == (None, fault)
        asked = list(web.asked)
        assert "elsewhere" not in asked
        assert (await known.of("example.org")).fault is fault
        assert web.asked == asked
        clock.advance(BACKOFF + 1)
        await known.of("example.org")
        assert len(web.asked) == 2 * len(asked)


async def test_a_policys_host_that_says_nothing_is_told_of_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mta_sts_fetch, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with SmallDns(dict(RECORDS)) as dns:
            found = await policies(dns, PolicyHost(CA, port=silent.getsockname()[1]), FakeClock()).of("example.org")
    assert found.fault is Fault.STS_POLICY_FETCH_ERROR
    assert found.text == "cannot fetch the policy from mta-sts.example.org: no answer in time"


async def test_a_policys_host_is_not_looked_for_in_places_of_ours() -> None:
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web:
        found = await policies(dns, web, FakeClock(), private=False).of("example.org")
        assert found.fault is Fault.STS_POLICY_FETCH_ERROR
        assert web.asked == []


# --- hosts ---


def certificate(*names: str, issuer: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names).configure_cert(context)
    return context


async def deliver(dns: SmallDns, web: PolicyHost, host: ScriptedHost, ca_file: Path, **options: Any) -> Outcome:
    options.setdefault("tls", "mta-sts")
    out = DirectTransport(
        "direct",
        DirectOptions(
            "relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True, ca_file=ca_file, policy_port=web.port, **options,
        ),
        FakeClock(),
    )  # fmt: skip
    message = batch()
    outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
    await out.close()
    return outcome


def starttls(*names: str, issuer: trustme.CA = CA) -> ScriptedHost:
    return ScriptedHost(tls=certificate(*names, issuer=issuer), offers=("STARTTLS", "8BITMIME"))


async def test_a_host_that_keeps_to_the_policy(ca_file: Path) -> None:
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA, body=ENFORCE) as web, starttls("mx.example.org") as host:
        outcome = await deliver(dns, web, host, ca_file)
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls is not None
        assert outcome.trail.tls.startswith("TLSv1.3 TLS_")
        assert outcome.trail.tls.endswith(" (mta-sts enforce: verified)")
        assert host.tls_names == ["mx.example.org"]


BREACHES: dict[str, tuple[ScriptedHost, list[str]]] = {
    "another name": (starttls("other.example.org"), ["10 mx.example.org."]),
    "unknown issuer": (starttls("mx.example.org", issuer=STRANGER), ["10 mx.example.org."]),
    "no STARTTLS": (ScriptedHost(), ["10 mx.example.org."]),
    "not in the policy": (starttls("mx2.example.org"), ["10 mx2.example.org."]),
}


def breach(name: str) -> tuple[ScriptedHost, dict[Any, Any]]:
    host, mx = BREACHES[name]
    fresh = ScriptedHost(tls=host.tls, offers=host.offers)
    return fresh, {**RECORDS, ("example.org", "MX"): mx, ("mx2.example.org", "A"): ["127.0.0.1"]}


@pytest.mark.parametrize("name", BREACHES)
async def test_enforce_sends_nothing_to_a_host_that_does_not(ca_file: Path, name: str) -> None:
    fresh, records = breach(name)
    async with SmallDns(records) as dns, PolicyHost(CA, body=ENFORCE) as web, fresh as host:
        outcome = await deliver(dns, web, host, ca_file)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE)
        assert outcome.reply.enhanced == "4.7.5"
        assert host.said("MAIL") == []


@pytest.mark.parametrize("name", BREACHES)
async def test_testing_sends_all_the_same(ca_file: Path, name: str) -> None:
    fresh, records = breach(name)
    async with SmallDns(records) as dns, PolicyHost(CA, body=TESTING) as web, fresh as host:
        outcome = await deliver(dns, web, host, ca_file)
        assert isinstance(outcome, Delivered)
        assert (outcome.trail.tls is None) is (name == "no STARTTLS")
        assert outcome.trail.tls is None or outcome.trail.tls.endswith(" (mta-sts testing: not met)")


async def test_the_next_host_that_keeps_to_the_policy_is_taken(ca_file: Path) -> None:
    records = {
        **RECORDS,
        ("example.org", "MX"): ["10 rogue.test.", "20 mx.example.org."],
        ("rogue.test", "A"): ["127.0.0.2"],
    }
    async with (
        SmallDns(records) as dns,
        PolicyHost(CA, body=ENFORCE) as web,
        starttls("mx.example.org") as host,
        ScriptedHost(address="127.0.0.2", port=host.port) as rogue,
    ):
        assert isinstance(await deliver(dns, web, host, ca_file), Delivered)
        assert rogue.connections == 0


async def test_without_a_policy_it_is_opportunistic(ca_file: Path) -> None:
    records = {key: value for key, value in RECORDS.items() if key[1] != "TXT"}
    async with SmallDns(records) as dns, PolicyHost(CA) as web, ScriptedHost() as host:
        assert isinstance(await deliver(dns, web, host, ca_file), Delivered)
        assert web.asked == []


@pytest.mark.parametrize(
    ("by_domain", "strict"),
    [
        ({"example.org": "required"}, True),
        ({"*.org": "required"}, True),
        ({"*.example.org": "required"}, False),
        ({"example.org": "none", "*.org": "required"}, False),
        ({"other.test": "required"}, False),
    ],
)
async def test_the_policy_of_a_domain_goes_before_that_of_all(ca_file: Path, by_domain: Any, strict: bool) -> None:
    async with SmallDns(dict(RECORDS)) as dns, PolicyHost(CA) as web, ScriptedHost() as host:
        outcome = await deliver(dns, web, host, ca_file, tls="opportunistic", tls_by_domain=by_domain)
        assert isinstance(outcome, Deferred if strict else Delivered)
        assert bool(host.said("MAIL")) is not strict


async def test_dane_waits_where_no_name_server_can_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SmallDns(dict(RECORDS)) as dns, ScriptedHost() as host:
        options = DirectOptions("relay.example.com", host.port, "dane", [dns.nameserver], allow_private_addresses=True)
        out = DirectTransport("direct", options, FakeClock())
        monkeypatch.setattr(MailHosts, "trusted", False)  # as if it had stood in /etc/resolv.conf, and not on this host
        message = batch()
        outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
        await out.close()
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.TRANSPORT, PauseReason.CONFIGURATION)
        assert "validating resolver" in outcome.remedy
        assert host.connections == 0


@pytest.mark.parametrize(
    ("mx", "web", "kind", "fault"),
    [
        ("10 mx2.example.org.", {"body": TESTING}, 2, 205),  # not in the policy
        ("10 mx.example.org.", {"status": 404}, 2, 301),
        ("10 mx.example.org.", {"body": "hello"}, 2, 302),
        ("10 mx.example.org.", {"body": TESTING}, 2, None),
    ],
)
async def test_each_connection_is_reported_once_whatever_is_wrong_with_the_policy(
    tmp_path: Path, ca_file: Path, mx: str, web: dict[str, Any], kind: int, fault: int | None
) -> None:
    records = {
        **RECORDS,
        ("example.org", "MX"): [mx],
        ("mx2.example.org", "A"): ["127.0.0.1"],
        ("_smtp._tls.example.org", "TXT"): ['"v=TLSRPTv1; rua=mailto:tls@example.org"'],
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(str(tmp_path / "tlsrpt"))
        collector.setblocking(False)
        async with SmallDns(records) as dns, PolicyHost(CA, **web) as policy, starttls("mx.example.org") as host:
            options = DirectOptions(
                "relay.example.com", host.port, "mta-sts", [dns.nameserver], True, ca_file=ca_file, policy_port=policy.port, tlsrpt_socket=tmp_path / "tlsrpt",
            )  # fmt: skip
            out = DirectTransport("direct", options, FakeClock())
            for _ in range(3):  # over one connection
                message = batch()
                assert isinstance(by_address(message, await out.deliver(message, Bytes()))["b@example.org"], Delivered)
            await out.close()
            assert host.connections == 1
        (told,) = json.loads(collector.recv(65536))["policies"]
        assert (told["policy-type"], told["f"]) == (kind, int(fault is not None))
        assert [(one["c"], one["n"]) for one in told.get("failure-details", [])] == ([] if fault is None else [(fault, mx[3:-1])])
        with pytest.raises(BlockingIOError):
            collector.recv(65536)


async def test_no_mail_waits_for_the_record_that_asks_for_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsrpt, "PATIENCE", 0.05)
    clock, name = FakeClock(), "_smtp._tls.example.org"
    records = {**RECORDS, (name, "TXT"): ['"v=TLSRPTv1; rua=mailto:tls@example.org"']}
    async with SmallDns(records, silent={name}) as dns:
        collector = Collector(tmp_path / "tlsrpt", MailHosts(clock, [dns.nameserver]), clock)
        for _ in range(3):
            assert await collector.record("example.org") is None
        assert [asked[0] for asked in dns.asked] == [name]  # and not again for a while
        dns.silent.clear()
        clock.advance(BACKOFF)
        assert await collector.record("example.org") is not None
        collector.close()
