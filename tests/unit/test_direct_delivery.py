"""The direct transport: real look-ups over loopback, then hosts on loopback addresses that answer as they are told."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import HELLO, Bytes, batch, by_address, unused_port
from fakes import FakeClock
from scripted_host import DROP, ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.transport import addresses
from sesrelay.transport.direct import DirectOptions, DirectTransport
from small_dns import SmallDns

TWO_HOSTS = {
    ("example.org", "MX"): ["10 mx1.example.org.", "20 mx2.example.org."],
    ("mx1.example.org", "A"): ["127.0.0.1"],
    ("mx2.example.org", "A"): ["127.0.0.2"],
}


async def deliver(dns: SmallDns, port: int, *recipients: str, clock: FakeClock | None = None, **options: Any) -> Any:
    """Send one message; return the outcome, or one a recipient in their order."""
    options.setdefault("allow_private_addresses", True)
    out = DirectTransport(
        "direct", DirectOptions("relay.example.com", port, nameservers=[dns.nameserver], **options), clock or FakeClock()
    )
    message = batch(*recipients)
    found = by_address(message, await out.deliver(message, Bytes()))
    await out.close()
    return [found[one] for one in recipients] if recipients else found["b@example.org"]


async def test_to_the_preferred_host() -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost() as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        outcome = await deliver(dns, first.port)
        assert isinstance(outcome, Delivered)
        assert outcome.remote_id == "4XyZ123"
        assert first.messages[0].content == HELLO
        assert first.commands[0][0] == "EHLO relay.example.com"
        assert second.connections == 0


@pytest.mark.parametrize(
    "records", [{("example.org", "A"): ["127.0.0.1"]}, {("example.org", "CNAME"): ["x.test."], ("x.test", "A"): ["127.0.0.1"]}]
)
async def test_without_mx_to_the_domain_itself(records: dict[tuple[str, str], list[str]]) -> None:
    async with SmallDns(records) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port), Delivered)


async def test_to_an_internationalised_domain() -> None:
    async with SmallDns({("xn--bcher-kva.example", "A"): ["127.0.0.1"]}) as dns, ScriptedHost() as host:
        (outcome,) = await deliver(dns, host.port, "b@Bücher.example")
        assert isinstance(outcome, Delivered)


async def test_equals_take_turns_by_chance() -> None:
    class Dice(FakeClock):
        throws = iter([0.9, 0.1, 0.1, 0.9])

        def chance(self) -> float:
            return next(self.throws)

    records = {**TWO_HOSTS, ("example.org", "MX"): ["10 mx1.example.org.", "10 mx2.example.org."]}
    async with SmallDns(records) as dns, ScriptedHost() as one, ScriptedHost(address="127.0.0.2", port=one.port) as other:
        clock = Dice()
        await deliver(dns, one.port, clock=clock)
        await deliver(dns, one.port, clock=clock)
        assert len(one.messages) == len(other.messages) == 1


@pytest.mark.parametrize(
    "replies",
    [{"CONNECT": "421 4.3.2 Busy"}, {"CONNECT": "554 5.7.1 Not you"}, {"EHLO": "550 No"}, {"CONNECT": DROP}, {"MAIL": "451 4.7.1 Later"},
     {"MAIL": "550 5.7.1 Not you"}, {"MAIL": DROP}, {"RCPT": DROP}, {"RCPT": "421 4.3.2 Closing"}, {"DATA": DROP}],
)  # fmt: skip
async def test_the_next_host_is_tried_where_the_first_does_not_serve_us(replies: dict[str, Any]) -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost(replies) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        assert isinstance(await deliver(dns, first.port), Delivered)
        assert first.connections == 1
        assert len(second.messages) == 1


async def test_the_next_host_is_tried_where_nobody_listens_at_the_first() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost(address="127.0.0.2") as second:
        assert isinstance(await deliver(dns, second.port), Delivered)


@pytest.mark.parametrize(
    ("replies", "kind", "scope"),
    [
        ({"RCPT": "550 5.1.1 Nobody"}, Failed, Scope.RECIPIENT),
        ({"RCPT": "450 4.2.0 Greylisted"}, Deferred, Scope.RECIPIENT),
        ({".": "554 5.6.0 Spam"}, Failed, Scope.MESSAGE),
        ({".": "452 4.3.1 Full"}, Deferred, Scope.MESSAGE),
        ({".": DROP}, Deferred, Scope.MESSAGE),
    ],
)
async def test_an_answer_to_the_message_is_final_for_this_attempt(replies: dict[str, Any], kind: type, scope: Scope) -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost(replies) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        outcome = await deliver(dns, first.port)
        assert (type(outcome), outcome.scope) == (kind, scope)
        assert getattr(outcome, "ambiguous", False) is (replies == {".": DROP})
        assert second.connections == 0


async def test_each_recipient_has_its_own_answer() -> None:
    replies: dict[str, Any] = {"RCPT b@example.org": "550 5.1.1 Nobody", "RCPT c@example.org": "450 4.2.0 Later"}
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost(replies) as host:
        found = await deliver(dns, host.port, "b@example.org", "c@example.org", "d@Example.ORG")
        assert [type(one) for one in found] == [Failed, Deferred, Delivered]


@pytest.mark.parametrize(
    ("second", "kind", "scope"),
    [
        ({"CONNECT": "554 5.7.1 Nor here"}, Failed, Scope.RECIPIENT_DOMAIN),
        ({"MAIL": "550 5.7.1 Nor here"}, Failed, Scope.RECIPIENT_DOMAIN),
        ({"CONNECT": "421 4.3.2 Busy"}, Deferred, Scope.RECIPIENT_DOMAIN),
        ({"MAIL": "451 4.7.1 Later"}, Deferred, Scope.MESSAGE),
    ],
)
async def test_a_domain_fails_only_where_all_its_hosts_agree(second: dict[str, Any], kind: type, scope: Scope) -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost({"CONNECT": "554 5.7.1 Not you"}) as first,
        ScriptedHost(second, address="127.0.0.2", port=first.port),
    ):
        outcome = await deliver(dns, first.port)
        assert (type(outcome), outcome.scope) == (kind, scope)


async def test_nobody_listens_anywhere() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns:
        outcome = await deliver(dns, unused_port())
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE)


async def test_a_host_whose_addresses_cannot_be_looked_up_does_not_hide_the_others() -> None:
    async with SmallDns(dict(TWO_HOSTS), rcodes={"mx1.example.org": "SERVFAIL"}) as dns:
        async with ScriptedHost(address="127.0.0.2") as second:
            assert isinstance(await deliver(dns, second.port), Delivered)
        outcome = await deliver(dns, unused_port())
        assert isinstance(outcome, Deferred)


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ({("example.org", "MX"): ["0 ."]}, "5.1.10"),
        ({("other.test", "A"): ["127.0.0.1"]}, "5.1.2"),
        ({("example.org", "TXT"): ["hello"]}, "5.4.4"),
        ({("example.org", "MX"): ["10 gone.test."]}, "5.4.4"),
        (
            {("example.org", "MX"): ["10 relay.example.com.", "20 mx2.example.org."], ("mx2.example.org", "A"): ["127.0.0.2"]},
            "5.4.6",
        ),
    ],
)
async def test_what_the_dns_rules_out_fails(records: dict[tuple[str, str], list[str]], status: str) -> None:
    async with SmallDns(records) as dns:
        outcome = await deliver(dns, unused_port())
        assert isinstance(outcome, Failed)
        assert (outcome.reply.enhanced, outcome.scope) == (status, Scope.RECIPIENT_DOMAIN)


async def test_a_backup_host_delivers_to_those_that_are_preferred_to_it() -> None:
    records = {**TWO_HOSTS, ("example.org", "MX"): ["10 mx1.example.org.", "20 relay.example.com.", "30 mx2.example.org."]}
    async with (
        SmallDns(records) as dns,
        ScriptedHost({"CONNECT": "421 Busy"}) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as after_us,
    ):
        assert isinstance(await deliver(dns, first.port), Deferred)
        assert after_us.connections == 0


# --- the guard ---


@pytest.mark.parametrize(
    "address", [("A", "127.0.0.1"), ("A", "10.0.0.1"), ("AAAA", "::1"), ("AAAA", "::ffff:7f00:1"), ("AAAA", "64:ff9b::7f00:1")]
)
async def test_mail_is_not_taken_to_private_addresses(address: tuple[str, str]) -> None:
    records = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", address[0]): [address[1]]}
    async with SmallDns(records) as dns, ScriptedHost() as host:
        outcome = await deliver(dns, host.port, allow_private_addresses=False)
        assert isinstance(outcome, Failed)
        assert (outcome.reply.enhanced, outcome.scope) == ("5.4.4", Scope.RECIPIENT_DOMAIN)
        assert host.connections == 0


async def test_an_address_of_ours_ends_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every address of a test is on loopback, which is refused for that already: let loopback pass here.
    monkeypatch.setattr(addresses, "refusal", lambda _address, *, allow_private: None)
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        outcome = await deliver(dns, host.port, allow_private_addresses=False)
        assert isinstance(outcome, Failed)
        assert outcome.reply.enhanced == "5.4.6"
        assert host.connections == 0


async def test_the_address_that_was_guarded_is_the_one_connected_to() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port), Delivered)
        assert sum(name == "mx1.example.org" for name, _, _ in dns.asked) == 2  # A and AAAA, once each


async def test_from_the_source_address() -> None:
    records = {**TWO_HOSTS, ("mx1.example.org", "AAAA"): ["::1"]}
    async with SmallDns(records) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port, source_address="127.0.0.3"), Delivered)
        assert host.peers == ["127.0.0.3"]
        assert ("mx1.example.org", "AAAA", "udp") not in dns.asked


# --- TLS ---

CA = trustme.CA()


def certificate(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name).configure_cert(context)
    return context


async def secured(name: str, tls: str, ca_file: Path) -> tuple[Outcome, ScriptedHost]:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost(tls=certificate(name), offers=("STARTTLS",)) as host:
        return await deliver(dns, host.port, tls=tls, ca_file=ca_file), host


async def test_tls_is_for_the_name_of_the_mail_host(tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    outcome, host = await secured("mx1.example.org", "required", tmp_path / "ca.pem")
    assert isinstance(outcome, Delivered)
    assert outcome.trail.tls
    assert host.tls_names == ["mx1.example.org"]
    outcome, host = await secured("example.org", "required", tmp_path / "ca.pem")
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.RECIPIENT_DOMAIN
    assert host.said("MAIL") == []
    outcome, host = await secured("example.org", "opportunistic", tmp_path / "ca.pem")
    assert isinstance(outcome, Delivered)
    assert outcome.trail.tls


def test_the_nexthop_is_the_domain() -> None:
    out = DirectTransport("direct", DirectOptions("relay.example.com"), FakeClock())
    assert out.nexthop("b@Example.ORG") == out.nexthop("c@example.org.") == "example.org"
