"""SPF as receivers evaluate it, and DMARC as they find it, before a real name server. Source: RFC 7208, appendix A and §4.6.4."""

from __future__ import annotations

import pytest

from sesrelay.setup.checkup.dns import DirectHost, direct_domain
from sesrelay.setup.checkup.spf import Broken, Evaluation, Unanswered
from sesrelay.setup.zones.lookup import Dns, findings
from sesrelay.setup.zones.records import Found, Record, compare
from sesrelay.setup.zones.spf import covers
from small_dns import SmallDns

HERE, SIX = "8.8.4.4", "2001:4860::44"
ZONE: dict[tuple[str, str], list[str]] = {
    ("other.test", "TXT"): ['"v=spf1 ip4:8.8.4.0/24 -all"'],
    ("strangers.test", "TXT"): ['"v=spf1 ip4:9.9.9.9 -all"'],
    ("open.test", "TXT"): ['"v=spf1 +all"'],
    ("twice.test", "TXT"): ['"v=spf1 -all"', '"v=spf1 +all"'],
    ("circle.test", "TXT"): ['"v=spf1 include:circle.test -all"'],
    ("8.8.4.4.ip.test", "A"): ["127.0.0.2"],
    ("4.4.8.8.of.ip.test", "A"): ["127.0.0.2"],
    ("sender.test.of.test", "TXT"): ['"v=spf1 ip4:8.8.4.4"'],
    ("test.sender.of.test", "TXT"): ['"v=spf1 ip4:8.8.4.4"'],
    ("sender.test", "A"): ["8.8.4.9"],
    ("sender.test", "AAAA"): ["2001:4860::9"],
    ("sender.test", "MX"): ["10 mx1.test.", "20 mx2.test."],
    ("mx1.test", "A"): ["9.9.9.9"],
    ("mx2.test", "A"): [HERE],
    ("mx2.test", "AAAA"): [SIX],
    ("4.4.8.8.in-addr.arpa", "PTR"): ["mail.sender.test."],
    ("mail.sender.test", "A"): [HERE],
    **{(f"none{n}.test", "TXT"): ['"v=spf1 -all"'] for n in range(11)},
}


def _includes(count: int) -> str:
    return " ".join(f"include:none{number}.test" for number in range(count))


async def verdict(record: str, address: str = HERE) -> str:
    texts = " ".join(f'"{record[start : start + 250]}"' for start in range(0, len(record), 250))
    async with SmallDns({**ZONE, ("sender.test", "TXT"): [texts, '"something=else"']}, rcodes={"down.test": "SERVFAIL"}) as dns:
        return await Evaluation(Dns([dns.nameserver]), address, "sender.test", "mail.sender.test").verdict()


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("ip4:8.8.4.4 -all", "pass"),
        ("ip4:9.9.9.9 ip4:8.8.0.0/16 ~all", "pass"),
        ("IP4:8.8.4.4 -ALL", "pass"),
        ("-ip4:8.8.4.4 ip4:8.8.4.0/24 -all", "fail"),
        ("ip6:2001:4860::/32 -all", "fail"),
        ("~all", "softfail"),
        ("?all", "neutral"),
        ("ip4:9.9.9.9", "neutral"),
        ("all", "pass"),
        ("a -all", "fail"),
        ("a/24 -all", "pass"),
        ("a:mx2.test -all", "pass"),
        ("mx -all", "pass"),
        ("mx:sender.test/8//64 -all", "pass"),
        ("ptr -all", "pass"),
        ("ptr:elsewhere.test -all", "fail"),
        ("include:other.test -all", "pass"),
        ("include:strangers.test ~all", "softfail"),
        ("-include:open.test +all", "fail"),
        ("redirect=other.test", "pass"),
        ("redirect=other.test -all", "fail"),
        ("exists:%{i}.ip.test -all", "pass"),
        ("exists:%{ir}.of.ip.test -all", "pass"),
        ("exists:%{l}.%{v}.ip.test -all", "fail"),
        ("include:%{d}.of.test -all", "pass"),
        ("include:%{dr}.of.test -all", "pass"),
        ("include:%{o2}.of.test -all", "pass"),
        ("exp=why.test foo=bar ip4:8.8.4.4 -all", "pass"),
        (" foo=%_.  a:mx2.test.  -all", "pass"),
        ("a:%{d} a:mx-2.x-y -a:9.9.9.9.test ip4:8.8.4.4 -all", "pass"),
        (f"ip4:8.8.4.4 {_includes(11)} -all", "pass"),
        (f"{_includes(10)} ip4:8.8.4.4 -all", "pass"),
    ],
)
async def test_a_record_lets_an_address_send_or_not(terms: str, expected: str) -> None:
    assert await verdict(f"v=spf1 {terms}") == expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("a//32 -all", "pass"),
        ("a/0 -all", "fail"),
        ("mx -all", "pass"),
        ("ip6:2001:4860::44 -all", "pass"),
        ("ip4:8.8.4.4 -all", "fail"),
    ],
)
async def test_an_ipv6_address_has_prefixes_of_its_own(terms: str, expected: str) -> None:
    assert await verdict(f"v=spf1 {terms}", SIX) == expected


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ("ip4:banana -all", "ip4:banana cannot be read"),
        ("ip4:2001:db8::1 -all", "cannot be read"),
        ("ip4:8.8.4.4 nonsense -all", "nonsense cannot be read"),
        ("include -all", "include cannot be read"),
        ("a/33 -all", "a/33 cannot be read"),
        ("ip4:8.8.4.4/032 -all", "ip4:8.8.4.4/032 cannot be read"),
        ("ip4:8.8.4.4 a:other.test:8080 -all", "a:other.test:8080 cannot be read"),
        ("ip4:8.8.4.4 a:8.8.4.4 -all", "a:8.8.4.4 cannot be read"),
        ("ip4:8.8.4.4 mx: -all", "mx: cannot be read"),
        ("ip4:8.8.4.4 include:localhost -all", "include:localhost cannot be read"),
        ("ip4:8.8.4.4 exists:%{x}.other.test -all", r"exists:%\{x\}.other.test cannot be read"),
        ("ip4:8.8.4.4 exists:%{d0}.other.test -all", r"exists:%\{d0\}.other.test cannot be read"),
        ("ip4:8.8.4.4 exp= -all", "exp= cannot be read"),
        ("ip4:8.8.4.4 exp=why.test exp=why.test -all", "several exp="),
        ("ip4:8.8.4.4 foo=100% -all", "foo=100% cannot be read"),
        ("ip4:8.8.4.4 redirect=8.8.4.4", "redirect=8.8.4.4 cannot be read"),
        ("ip4:8.8.4.4 foo=\xfc -all", "cannot be read"),
        ("redirect=other.test redirect=other.test", "several redirect="),
        ("include:nothing.test -all", "include:nothing.test: there is no SPF record"),
        ("redirect=nothing.test", "there is no SPF record"),
        ("include:twice.test -all", "twice.test has several SPF records"),
        ("include:circle.test -all", "more than 10 terms that need a DNS look-up"),
        (f"{_includes(11)} ip4:8.8.4.4 -all", "more than 10 terms that need a DNS look-up, at include:none10.test"),
        ("a:n1.test mx:n2.test exists:n3.test ip4:8.8.4.4 -all", "more than 2 void look-ups, the last one at n3.test"),
    ],
)
async def test_a_broken_record_is_told_of(terms: str, why: str) -> None:
    with pytest.raises(Broken, match=why):
        await verdict(f"v=spf1 {terms}")


async def test_what_is_not_answered_is_no_verdict() -> None:
    with pytest.raises(Unanswered, match=r"down\.test TXT"):
        await verdict("v=spf1 include:down.test -all")
    assert await verdict("v=spf1 ip4:8.8.4.4 include:down.test -all") == "pass", "what decides before it is asked counts"


async def told(check: str, records: dict[tuple[str, str], list[str]], address: str = HERE, **rcodes: str) -> tuple[str, str, str]:
    async with SmallDns({**ZONE, **records}, rcodes={name.replace("_", "."): code for name, code in rcodes.items()}) as dns:
        found = await direct_domain(Dns([dns.nameserver]), "example.test", DirectHost("mail.example.test", (address,)), [])
    (one,) = (one for one in found if one.check == check)
    return one.status, one.message, one.remedy or ""


async def test_the_remedy_keeps_who_sends_besides() -> None:
    there = "v=spf1 include:strangers.test -all"
    assert await told("spf", {("example.test", "TXT"): [f'"{there}"']}) == (
        "fail",
        "does not cover 8.8.4.4",
        f"publish TXT v=spf1 include:strangers.test ip4:8.8.4.4 -all in place of {there}",
    )
    several = {("example.test", "TXT"): ['"v=spf1 ip4:9.9.9.9 ~all"', '"v=spf1 mx ~all"']}
    assert (await told("spf", several))[2].startswith("publish TXT v=spf1 ip4:9.9.9.9 mx ip4:8.8.4.4 ~all in place of")


@pytest.mark.parametrize(
    ("there", "remedy"),
    [
        ("-ip4:8.8.4.4 -all", "ip4:8.8.4.4 -all"),
        ("mx ~IP4:8.8.4.4 include:strangers.test ~all", "mx ip4:8.8.4.4 include:strangers.test ~all"),
        ("mx -ip4:8.8.4.0/24 ?a -all", "mx ip4:8.8.4.4 -ip4:8.8.4.0/24 ?a -all"),
        ("-ip4:8.8.4.0/24 ip4:8.8.4.4 -all", "ip4:8.8.4.4 -ip4:8.8.4.0/24 -all"),
        ("-all ip4:8.8.4.4", "ip4:8.8.4.4 -all"),
    ],
)
async def test_what_is_published_by_the_remedy_passes(there: str, remedy: str) -> None:
    record = {("example.test", "TXT"): [f'"v=spf1 {there}"']}
    assert (await told("spf", record))[2] == f"publish TXT v=spf1 {remedy} in place of v=spf1 {there}"
    assert await verdict(f"v=spf1 {remedy}") == "pass"


def test_a_mechanism_behind_all_covers_nothing() -> None:
    assert not covers("v=spf1 -all include:amazonses.com", ["include:amazonses.com"])
    assert covers("v=spf1 +include:amazonses.com -all", ["include:amazonses.com"])


@pytest.mark.parametrize("value", ["", "v=DKIM1; k=rsa; p=MIIB"])
def test_a_key_that_is_revoked_serves_nobody(value: str) -> None:
    record = Record("s1._domainkey.example.test", "TXT", value, "dkim")
    finding = compare(record, Found(("v=DKIM1; k=rsa; p=",)))
    assert (finding.state, finding.note) == ("different", "it has no key, which means a revoked key")
    assert compare(record, Found(("v=DKIM1; k=rsa; p=MIIB",))).state == "ok"


async def test_an_address_behind_nat_is_not_published() -> None:
    assert (await told("spf", {}, "10.0.0.7"))[2] == "publish TXT v=spf1 a:mail.example.test ~all"


async def test_an_included_record_that_gets_no_answer_is_no_failure() -> None:
    records = {("example.test", "TXT"): ['"v=spf1 include:down.test -all"']}
    assert (await told("spf", records, down_test="SERVFAIL"))[0] == "warn"


async def test_several_dmarc_records_count_as_none() -> None:
    status, message, _ = await told("dmarc", {("_dmarc.example.test", "TXT"): ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"']})
    assert (status, message) == ("warn", "_dmarc.example.test has several DMARC records, which receivers ignore")


def test_a_domain_above_that_gets_no_answer_may_have_a_dmarc_record() -> None:
    wanted = Record("_dmarc.shop.example.test", "TXT", "v=DMARC1; p=none", "dmarc")
    silent = Found(None, "no answer in time")
    (one,) = findings([wanted], {(wanted.name, "TXT"): Found(()), ("_dmarc.example.test", "TXT"): silent})
    assert (one.state, one.note) == ("unknown", "_dmarc.example.test: no answer in time")
