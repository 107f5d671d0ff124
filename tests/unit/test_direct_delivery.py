"""The direct transport: real look-ups over loopback, then hosts on loopback addresses that answer as they are told."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import HELLO, Bytes, batch, by_address, eventually, unused_port
from fakes import FakeClock
from scripted_host import DROP, ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.transport.client.pool import Keeping
from sesrelay.transport.direct import visit
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.exchangers import addresses
from sesrelay.transport.net.reach import Reached, reach
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


async def test_to_a_host_that_is_named_by_its_address() -> None:
    async with SmallDns({("example.org", "MX"): ["10 127.0.0.1."]}) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port), Delivered)
        assert isinstance(await deliver(dns, host.port, allow_private_addresses=False), Failed)
        assert host.connections == 1


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
    [{"CONNECT": "421 4.3.2 Busy"}, {"CONNECT": "554 5.7.1 Not you"}, {"EHLO": "550 No", "HELO": "550 No"}, {"CONNECT": DROP}, {"MAIL": "451 4.7.1 Later"},
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


@pytest.mark.parametrize("step", [0, 1])
async def test_no_domain_has_hundreds_of_names_looked_up(step: int) -> None:
    records = {("example.org", "MX"): [f"{10 + n * step} mx{n}.example.org." for n in range(60)]}
    async with SmallDns(records, rcodes={f"mx{n}.example.org": "SERVFAIL" for n in range(60)}) as dns:
        assert isinstance(await deliver(dns, 25), Deferred)
        assert len({name for name, kind, _ in dns.asked if kind == "A"}) == 20


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


@pytest.mark.parametrize("end", ["421 4.7.0 Error: too many errors", DROP])
@pytest.mark.parametrize("offers", [("PIPELINING",), ()])
async def test_whom_a_host_refused_before_it_went_away_is_refused(offers: tuple[str, ...], end: str) -> None:
    recipients = "good@example.org", "bad@example.org", "late@example.org", "last@example.org"
    replies = {"RCPT bad@example.org": "550 5.1.1 Unknown", "RCPT late@example.org": end}
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost(dict(replies), offers=offers) as first:
        good, bad, late, last = await deliver(dns, first.port, *recipients)
        assert (type(bad), bad.scope, bad.reply.enhanced) == (Failed, Scope.RECIPIENT, "5.1.1")
        assert [type(one) for one in (good, late, last)] == [Deferred] * 3
        async with ScriptedHost(address="127.0.0.2", port=first.port) as second:  # asked for the others alone
            good, bad, late, last = await deliver(dns, first.port, *recipients)
            assert [type(one) for one in (good, bad, late, last)] == [Delivered, Failed, Delivered, Delivered]
            assert second.said("RCPT") == [f"RCPT TO:<{one}>" for one in recipients if one != "bad@example.org"]


async def test_nor_is_that_forgotten_where_a_host_that_does_not_know_bdat_takes_no_other_connection() -> None:
    replies = {"CONNECT": ["220 host.test", "421 4.3.2 Busy"], "RCPT bad@example.org": "550 5.1.1 Unknown", ".": "502 5.5.2 What?"}
    records = {("example.org", "A"): ["127.0.0.1"]}
    async with SmallDns(records) as dns, ScriptedHost(dict(replies), offers=("PIPELINING", "CHUNKING")) as host:
        good, bad = await deliver(dns, host.port, "good@example.org", "bad@example.org")
        assert (type(good), type(bad), bad.reply.enhanced, host.connections) == (Deferred, Failed, "5.1.1", 2)


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


async def test_an_address_that_cannot_be_reached_is_not_tried_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def noting(candidates: Sequence[str], *args: Any, **more: Any) -> Reached:
        tried.extend(candidates)
        return await reach(candidates, *args, **more)

    monkeypatch.setattr(visit, "reach", noting)
    records = {("example.org", "MX"): [f"{n} mx{n}.example.org." for n in range(3)]}
    records |= {(f"mx{n}.example.org", "A"): ["127.0.0.2"] for n in range(3)}
    async with SmallDns(records) as dns:
        assert isinstance(await deliver(dns, unused_port()), Deferred)
    assert tried == ["127.0.0.2"]


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


# --- kept connections, dead hosts, many addresses ---


async def direct(dns: SmallDns, port: int, clock: FakeClock | None = None, **options: Any) -> DirectTransport:
    options.setdefault("allow_private_addresses", True)
    return DirectTransport(
        "direct", DirectOptions("relay.example.com", port, nameservers=[dns.nameserver], **options), clock or FakeClock()
    )


async def send(out: DirectTransport, *recipients: str) -> list[type]:
    """Send one message; return the kinds of the outcomes."""
    message = batch(*recipients)
    return [type(one) for one in by_address(message, await out.deliver(message, Bytes())).values()]


async def test_a_connection_is_kept_for_the_next_message() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        out = await direct(dns, host.port)
        assert [await send(out) for _ in range(3)] == [[Delivered]] * 3
        assert host.connections == 1
        await out.close()
        await eventually(lambda: host.commands[0][-1] == "QUIT")


async def test_domains_that_share_a_host_share_its_connections() -> None:
    records = {**TWO_HOSTS, ("example.net", "MX"): ["10 mx1.example.org."]}
    async with SmallDns(records) as dns, ScriptedHost() as host:
        out = await direct(dns, host.port)
        assert await send(out, "b@example.org") == await send(out, "c@example.net") == [Delivered]
        assert host.connections == 1
        await out.close()


async def test_a_kept_connection_serves_only_so_many_messages_and_so_long() -> None:
    clock = FakeClock()
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        out = await direct(dns, host.port, clock, keeping=Keeping(messages=2, age=100.0))
        for _ in range(3):
            await send(out)
        assert host.connections == 2
        clock.advance(101.0)
        await send(out)
        assert host.connections == 3
        await out.close()
        await eventually(lambda: [session[-1] for session in host.commands] == ["QUIT"] * 3)


async def test_a_connection_that_nobody_uses_is_left() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        out = await direct(dns, host.port, keeping=Keeping(idle=0.02))
        await send(out)
        await eventually(lambda: [session[-1] for session in host.commands] == ["QUIT"])
        await out.close()


@pytest.mark.parametrize("how", [DROP, "421 4.4.2 Idle for too long"])
async def test_a_stale_connection_is_replaced_once(how: str) -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost({"MAIL": ["250 Ok", how, "250 Ok"]}) as host:
        out = await direct(dns, host.port)
        assert await send(out) == await send(out) == [Delivered]
        assert host.connections == 2
        await out.close()


async def test_a_refusal_over_a_kept_connection_leads_to_the_next_host() -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost({"MAIL": ["250 Ok", "451 4.7.1 Enough for now"]}) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        out = await direct(dns, first.port)
        assert await send(out) == await send(out) == [Delivered]
        assert (first.connections, second.connections) == (1, 1)
        await out.close()


async def test_a_dead_host_is_asked_after_the_others_for_a_while() -> None:
    clock = FakeClock()
    records = {
        ("example.org", "MX"): ["10 mx1.example.org.", "20 mx2.example.org."],
        ("mx1.example.org", "A"): ["127.0.0.3"],
        ("mx2.example.org", "A"): ["127.0.0.2"],
    }
    async with SmallDns(records) as dns, ScriptedHost(address="127.0.0.2") as second:
        out = await direct(dns, second.port, clock)
        assert await send(out) == [Delivered]  # nobody listens at the first
        async with ScriptedHost(address="127.0.0.3", port=second.port) as first:
            assert await send(out) == [Delivered]
            assert first.connections == 0
            clock.advance(301.0)
            assert await send(out) == [Delivered]
            assert first.connections == 1
        await out.close()


async def test_a_dead_host_is_asked_where_there_is_no_other() -> None:
    async with SmallDns(dict(TWO_HOSTS)) as dns:
        out = await direct(dns, port := unused_port())
        assert await send(out) == [Deferred]
        async with ScriptedHost(port=port):
            assert await send(out) == [Delivered]
        await out.close()


@pytest.mark.parametrize("race", [False, True])
async def test_the_next_address_of_a_host_is_tried(race: bool) -> None:
    records = {("example.org", "A"): ["127.0.0.3"], ("example.org", "AAAA"): ["::1"]}
    async with SmallDns(records) as dns, ScriptedHost(address="::1") as host:
        assert isinstance(await deliver(dns, host.port, race_addresses=race), Delivered)


async def test_addresses_of_a_host_that_serve_nobody_are_passed_over() -> None:
    records = {("example.org", "A"): ["127.0.0.1"], ("example.org", "AAAA"): ["::1"]}
    async with (
        SmallDns(records) as dns,
        ScriptedHost({"CONNECT": "421 4.3.2 Busy"}) as four,
        ScriptedHost(address="::1", port=four.port) as six,
    ):
        assert isinstance(await deliver(dns, four.port), Delivered)
        assert (four.connections, six.connections) == (1, 1)


@pytest.mark.parametrize(("families", "peer"), [(("ipv4", "ipv6"), "127.0.0.1"), (("ipv6", "ipv4"), "::1"), (("ipv6",), "::1")])
async def test_families_in_the_order_of_the_configuration(families: tuple[str, ...], peer: str) -> None:
    records = {("example.org", "A"): ["127.0.0.1"], ("example.org", "AAAA"): ["::1"]}
    async with SmallDns(records) as dns, ScriptedHost() as four, ScriptedHost(address="::1", port=four.port) as six:
        assert isinstance(await deliver(dns, four.port, address_families=families), Delivered)
        assert [*four.peers, *six.peers] == [peer]
        assert ({kind for _, kind, _ in dns.asked} == {"MX", "AAAA"}) is (len(families) == 1)


async def test_a_host_of_our_own_address_ends_the_list_for_its_equals_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "refusal", lambda _address, *, allow_private: None)
    monkeypatch.setattr(addresses, "is_ours", "127.0.0.2".__eq__)
    equals = {**TWO_HOSTS, ("example.org", "MX"): ["10 mx1.example.org.", "10 mx2.example.org."]}
    async with SmallDns(equals) as dns, ScriptedHost() as host:
        outcome = await deliver(dns, host.port, allow_private_addresses=False)
        assert (type(outcome), outcome.reply.enhanced, host.connections) == (Failed, "5.4.6", 0)
    async with SmallDns(dict(TWO_HOSTS)) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port, allow_private_addresses=False), Delivered)


async def test_a_host_with_one_address_that_may_be_used_is_used() -> None:
    records = {("example.org", "A"): ["127.0.0.1", "0.0.0.0", "224.0.0.1"]}
    async with SmallDns(records) as dns, ScriptedHost() as host:
        assert isinstance(await deliver(dns, host.port), Delivered)


async def test_a_message_too_big_for_one_host_may_suit_the_next() -> None:
    async with (
        SmallDns(dict(TWO_HOSTS)) as dns,
        ScriptedHost(offers=("SIZE 10",)) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        assert isinstance(await deliver(dns, first.port), Delivered)
        assert (first.said("MAIL"), len(second.messages)) == ([], 1)


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


@pytest.mark.parametrize("starttls", ["454 4.7.0 TLS not available", DROP])
async def test_a_host_that_wants_tls_and_cannot_do_it_now_is_tried_again(starttls: str) -> None:
    replies = {"STARTTLS": starttls, "MAIL": "530 5.7.0 Must issue a STARTTLS command first"}
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns, ScriptedHost(dict(replies), offers=("STARTTLS",)) as host:
        outcome = await deliver(dns, host.port)
        assert isinstance(outcome, Deferred)
        assert outcome.scope is Scope.RECIPIENT_DOMAIN


async def test_a_host_whose_name_tls_cannot_say_is_a_host_without_tls() -> None:
    name = r"\195\182" * 31 + ".example.org"  # 62 octets, and 248 characters as they are written
    records = {("example.org", "MX"): [f"10 {name}."], (name, "A"): ["127.0.0.1"]}
    async with SmallDns(records) as dns, ScriptedHost(tls=certificate("mx.example.org"), offers=("STARTTLS",)) as host:
        assert isinstance(await deliver(dns, host.port), Delivered)
        assert isinstance(await deliver(dns, host.port, tls="required"), Deferred)


def test_the_nexthop_is_the_domain() -> None:
    out = DirectTransport("direct", DirectOptions("relay.example.com"), FakeClock())
    assert out.nexthop("b@Example.ORG") == out.nexthop("c@example.org.") == "example.org"
