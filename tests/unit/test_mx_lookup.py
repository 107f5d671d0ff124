"""Finding mail hosts: real look-ups against a small name server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from dns.rdatatype import RdataType

from batches import unused_port
from fakes import FakeClock
from sesrelay.mail.outcome import Deferred, Failed, PauseReason, Scope
from sesrelay.transport.exchangers.cache import AnswerCache
from sesrelay.transport.exchangers.mx import Absent, MailHost, MailHosts, without_ourselves
from small_dns import SmallDns

RECORDS = {
    ("example.org", "MX"): ["20 mx2.example.org.", "10 MX1.example.org."],
    ("mx1.example.org", "A"): ["192.0.2.1", "192.0.2.2"],
    ("mx1.example.org", "AAAA"): ["2001:db8::1"],
    ("mx2.example.org", "AAAA"): ["2001:db8::2"],
    ("plain.example", "A"): ["192.0.2.3"],
    ("alias.example", "CNAME"): ["example.org."],
    ("null.example", "MX"): ["0 ."],
    ("odd.example", "MX"): ["0 .", "10 mx1.example.org."],
    ("text.example", "TXT"): ["hello"],
    ("many.example", "MX"): [f"{n} a-long-name-for-a-mail-host-{n}.many.example." for n in range(60)],
}


async def test_by_preference() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        hosts = await MailHosts(FakeClock(), [dns.nameserver]).hosts("example.org")
        assert hosts == [MailHost(10, "mx1.example.org"), MailHost(20, "mx2.example.org")]


async def test_without_mx_the_domain_itself() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        assert await MailHosts(FakeClock(), [dns.nameserver]).hosts("plain.example") == [MailHost(0, "plain.example")]


async def test_aliases_are_followed() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        hosts = await MailHosts(FakeClock(), [dns.nameserver]).hosts("alias.example")
        assert isinstance(hosts, list)
        assert [host.name for host in hosts] == ["mx1.example.org", "mx2.example.org"]


async def test_an_answer_too_long_for_a_datagram_comes_over_tcp() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        hosts = await MailHosts(FakeClock(), [dns.nameserver]).hosts("many.example")
        assert isinstance(hosts, list)
        assert len(hosts) == 60
        assert [over for _, _, over in dns.asked] == ["udp", "tcp"]


async def test_answers_are_kept_for_their_ttl() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        assert await look.hosts("example.org") == await look.hosts("example.org")
        assert len(dns.asked) == 1


async def test_an_answer_of_many_records_is_not_kept() -> None:
    async with SmallDns({("example.org", "MX"): [f"{n} mx{n}.example.org." for n in range(200)]}) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        first = await look.hosts("example.org")
        assert await look.hosts("example.org") == first
        assert [over for _, _, over in dns.asked] == ["udp", "tcp"] * 2


async def test_what_is_kept_ends_with_its_ttl() -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS)) as dns:  # which says 60 s for everything
        look = MailHosts(clock, [dns.nameserver])
        for seconds, asked in ((0.0, 1), (59.0, 1), (2.0, 2)):
            clock.advance(seconds)
            await look.hosts("example.org")
            assert len(dns.asked) == asked


@pytest.mark.parametrize("domain", ["nowhere.example", "text.example"])
@pytest.mark.parametrize(("soa", "kept"), [((300, 30), 30.0), ((20, 7200), 20.0), (None, 0.0)])
async def test_what_is_not_there_is_kept_for_as_long_as_the_soa_says(domain: str, soa: tuple[int, int] | None, kept: float) -> None:
    clock = FakeClock()
    async with SmallDns(dict(RECORDS), soa=soa) as dns:
        look = MailHosts(clock, [dns.nameserver])
        first = await look.hosts(domain)
        assert await look.hosts(domain) == first
        assert len(dns.asked) == (1 if kept else 2)
        clock.advance(kept + 1.0)
        assert await look.hosts(domain) == first
        assert len(dns.asked) == (2 if kept else 3)


async def test_trouble_is_not_kept() -> None:
    async with SmallDns(dict(RECORDS), rcodes={"example.org": "SERVFAIL"}) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        await unknown(look.hosts("example.org"))
        dns.rcodes.clear()
        assert isinstance(await look.hosts("example.org"), list)


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        cache = AnswerCache(FakeClock(), size=2)
        look = MailHosts(FakeClock(), [dns.nameserver])
        look.resolver.cache = cache
        for domain in ("example.org", "plain.example", "example.org", "many.example", "example.org", "plain.example"):
            await look.hosts(domain)
        asked = [name for name, _, over in dns.asked if over == "udp"]
        assert (asked.count("example.org"), asked.count("many.example")) == (1, 1)


@pytest.mark.parametrize(("domain", "status"), [("null.example", "5.1.10"), ("nowhere.example", "5.1.2")])
async def test_what_the_dns_says_for_certain_fails(domain: str, status: str) -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        outcome = await MailHosts(FakeClock(), [dns.nameserver]).hosts(domain)
        assert isinstance(outcome, Failed)
        assert (outcome.reply.enhanced, outcome.scope) == (status, Scope.RECIPIENT_DOMAIN)
        assert outcome.reply.permanent


async def test_a_null_mx_beside_others_is_passed_over() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        assert await MailHosts(FakeClock(), [dns.nameserver]).hosts("odd.example") == [MailHost(10, "mx1.example.org")]


async def unknown(pending: Awaitable[object], scope: Scope = Scope.RECIPIENT_DOMAIN) -> None:
    outcome = await pending
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.enhanced, outcome.scope) == ("4.4.3", scope)
    assert (outcome.tolerance > 1) is (scope is Scope.TRANSPORT)
    assert outcome.reason is PauseReason.UNAVAILABLE


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_name_server_in_trouble_defers(rcode: str) -> None:
    async with SmallDns(dict(RECORDS), rcodes={"example.org": rcode, "mx1.example.org": rcode}) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        await unknown(look.hosts("example.org"))
        await unknown(look.addresses("mx1.example.org"))


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_a_name_server_that_does_not_know_edns_is_asked_without_it(rcode: str) -> None:
    async with SmallDns(dict(RECORDS), no_edns=rcode) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        for domain in ("example.org", "many.example"):
            hosts = await look.hosts(domain)
            assert isinstance(hosts, list)
        assert [name for name, _, over in dns.asked if over == "tcp"] == ["many.example"]
        asked = len(dns.asked)
        await look.hosts("example.org")
        assert len(dns.asked) == asked  # it is kept like any other answer
        assert isinstance(await look.hosts("nowhere.example"), Failed)


async def test_a_silent_name_server_is_our_trouble_and_no_domains() -> None:
    async with SmallDns(silent={"example.org"}) as dns:
        await unknown(MailHosts(FakeClock(), [dns.nameserver], lifetime=0.1).hosts("example.org"), Scope.TRANSPORT)


@pytest.mark.parametrize(("silent", "left"), [("AAAA", "192.0.2.1"), ("A", "2001:db8::1")])
async def test_a_family_that_nobody_tells_of_does_not_hold_up_the_other(
    silent: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sesrelay.transport.exchangers.mx.OTHER_FAMILY", 0.2)
    async with SmallDns(dict(RECORDS), silent={f"mx1.example.org {silent}"}) as dns, asyncio.timeout(10):
        found = await MailHosts(FakeClock(), [dns.nameserver], lifetime=60).addresses("mx1.example.org")
        assert left in found


async def test_a_family_is_waited_for_where_the_other_has_nothing() -> None:
    async with SmallDns(dict(RECORDS), silent={"mx2.example.org A"}) as dns:
        found = await MailHosts(FakeClock(), [dns.nameserver], lifetime=0.5).addresses("mx2.example.org")
        assert found == ["2001:db8::2"]
    async with SmallDns(dict(RECORDS), silent={"plain.example AAAA"}, rcodes={"plain.example A": "NXDOMAIN"}) as dns:
        await unknown(MailHosts(FakeClock(), [dns.nameserver], lifetime=0.5).addresses("plain.example"), Scope.TRANSPORT)


async def test_no_name_server_at_all_is_our_trouble() -> None:
    await unknown(MailHosts(FakeClock(), [f"127.0.0.1:{unused_port()}"], lifetime=0.2).hosts("example.org"), Scope.TRANSPORT)


async def test_addresses_come_in_the_order_asked_for() -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        both = await look.addresses("mx1.example.org")
        assert isinstance(both, list)
        assert (sorted(both[:2]), both[2:]) == (["192.0.2.1", "192.0.2.2"], ["2001:db8::1"])
        assert await look.addresses("mx1.example.org", [RdataType.AAAA]) == ["2001:db8::1"]
        assert await look.addresses("mx2.example.org") == ["2001:db8::2"]


async def test_a_host_that_is_named_by_its_address_is_there() -> None:
    async with SmallDns({("example.org", "MX"): ["10 192.0.2.7."]}) as dns:
        look = MailHosts(FakeClock(), [dns.nameserver])
        assert await look.hosts("example.org") == [MailHost(10, "192.0.2.7")]
        assert await look.addresses("192.0.2.7") == ["192.0.2.7"]
        assert isinstance(await look.addresses("192.0.2.7", (RdataType.AAAA,)), Failed)


@pytest.mark.parametrize("host", ["text.example", "gone.example"])
async def test_a_host_without_addresses_cannot_be_reached(host: str) -> None:
    async with SmallDns(dict(RECORDS)) as dns:
        outcome = await MailHosts(FakeClock(), [dns.nameserver]).addresses(host)
        assert isinstance(outcome, Failed)
        assert outcome.reply.enhanced == "5.4.4"


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (RdataType.A, "has no IPv4 address, and the configuration allows no other (address_families, source_address)"),
        (RdataType.AAAA, "has no IPv6 address, and the configuration allows no other (address_families, source_address)"),
    ],
)
async def test_a_host_of_the_other_family_has_an_address_all_the_same(family: RdataType, text: str) -> None:
    other = ("AAAA", "::1") if family is RdataType.A else ("A", "127.0.0.1")
    async with SmallDns({("mx.test", other[0]): [other[1]]}) as dns:
        found = await MailHosts(FakeClock(), [dns.nameserver]).addresses("mx.test", (family,))
        assert isinstance(found, Failed)
        assert str(found.reply) == f"550 5.4.4 the mail host mx.test {text}"


async def test_a_name_that_is_too_long_to_be_one_is_not_there() -> None:
    long = ".".join([letter * 60 for letter in "abcd"]) + ".test"
    async with SmallDns({(long, "A"): ["127.0.0.1"]}) as dns:
        assert await MailHosts(FakeClock(), [dns.nameserver]).addresses(long) == ["127.0.0.1"]
        with pytest.raises(Absent):
            await MailHosts(FakeClock(), [dns.nameserver]).answer(f"_25._tcp.{long}", RdataType.TLSA)


async def test_one_family_in_trouble_does_not_hide_the_other() -> None:
    async with SmallDns({("half.example", "A"): ["192.0.2.9"]}, rcodes={"half.example AAAA": "SERVFAIL"}) as dns:
        assert await MailHosts(FakeClock(), [dns.nameserver]).addresses("half.example") == ["192.0.2.9"]


def test_where_we_are_ourselves_the_list_ends() -> None:
    hosts = [MailHost(10, "a.test"), MailHost(20, "Us.Test"), MailHost(20, "b.test"), MailHost(30, "c.test")]
    assert without_ourselves(hosts, "us.test") == hosts[:1]
    assert without_ourselves(hosts[1:], "us.test") == []
    assert without_ourselves(hosts, "other.test") == hosts


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_name_servers_as_people_write_them(text: str) -> None:
    assert MailHosts(FakeClock(), [text])


@pytest.mark.parametrize("text", ["localhost", "127.0.0.1:x", "[::1]:x", "example.com:53", ""])
def test_what_is_no_name_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name server"):
        MailHosts(FakeClock(), [text])
