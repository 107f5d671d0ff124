"""What the DNS says of sender domains, and of this host where mail goes to exchangers directly.

Source: RFC 7208 (SPF), RFC 7489 §3.1 (alignment), RFC 5321 §4.1.4 and M3AWG's practice (the name in EHLO and reverse DNS).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sesrelay.aws.identities import Identity
from sesrelay.mail.address import parents
from sesrelay.seams import Clock
from sesrelay.setup.checkup.check import Check, fail, ok, warn
from sesrelay.setup.checkup.spf import Broken, Evaluation, Unanswered
from sesrelay.setup.zones.lookup import LIFETIME, Answers, Dns
from sesrelay.setup.zones.records import Finding, Found, is_dmarc, key_of
from sesrelay.setup.zones.spf import is_spf, merge
from sesrelay.transport.exchangers.addresses import refusal
from sesrelay.transport.exchangers.mx import MailHosts
from sesrelay.transport.exchangers.validation import validation

CONNECT = 5.0  # seconds for a connection to port 25 outside; a blocked port mostly answers nothing at all


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A DKIM key that signs here: where its record is meant to be, and what it says."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DirectHost:
    """This host, as exchangers see it. `addresses` it connects from; `port` of exchangers; `private` may be connected to."""

    name: str
    addresses: tuple[str, ...]
    port: int = 25
    private: bool = False


def records(domain: str, found: Iterable[Finding]) -> Iterator[Check]:
    """Tell of each record that the domain wants."""
    for finding in found:
        record = finding.record
        check, subject = record.purpose.replace("_", "-"), f"{record.name} {record.type}"
        if finding.state == "ok":
            yield ok(check, subject, finding.note or "correct")
            continue
        if finding.state == "unknown":
            yield warn(check, subject, f"could not be looked up: {finding.note}", "try again, or ask another name server")
            continue
        there = f": {', '.join(finding.found)}" if finding.found else ""
        message = f"{finding.state}{there}" + (f" ({finding.note})" if finding.note else "")
        remedy = f"publish {record.type} {record.value}" if record.value else f"sesrelay domain dns {domain}"
        if record.is_spf:
            remedy = _one_record(finding.found, record.spf_terms)
        yield (warn if record.purpose == "dmarc" else fail)(check, subject, message, remedy)


def alignment(domain: str, identity: Identity) -> Check:
    """Tell by what mail of the domain through SES passes DMARC."""
    ways = []
    if identity.dkim_enabled and identity.dkim_status == "success":
        ways.append("DKIM")
    if identity.mail_from and identity.mail_from_status == "success":
        ways.append("SPF")
    if not ways:
        return fail("alignment", domain, "neither DKIM nor SPF is aligned: DMARC fails", f"sesrelay domain dns {identity.domain}")
    more = "" if len(ways) == 2 else "; with a custom MAIL FROM domain SPF would be aligned too" if ways == ["DKIM"] else ""
    return ok("alignment", domain, f"DMARC passes by {' and '.join(ways)}{more}")


async def direct_domain(dns: Dns, domain: str, host: DirectHost, keys: Sequence[SigningKey]) -> list[Check]:
    """Look at a domain whose mail leaves this host directly."""
    questions = [(domain, "TXT"), *((f"_dmarc.{name}", "TXT") for name in (domain, *parents(domain)))]
    answers = await dns.ask([*questions, *((key.name, "TXT") for key in keys)])
    checks = [await _spf(dns, domain, host, answers[domain, "TXT"])]
    checks += [_dkim(key, answers[key.name, "TXT"]) for key in keys]
    if not keys:
        checks.append(
            warn(
                "dkim",
                domain,
                "mail sent directly has no DKIM signature",
                f"sesrelay dkim generate {domain}, then set dkim under the transport",
            )
        )
    checks.append(_dmarc(domain, answers))
    return checks


async def host(dns: Dns, found: DirectHost) -> list[Check]:
    """Look at the addresses from which mail leaves, and at the name that stands in EHLO."""
    if not found.addresses:
        return [warn("address", found.name, "no route to the internet was found", "check the network: ip route")]
    checks: list[Check] = []
    forward = await dns.ask([(found.name, "A"), (found.name, "AAAA")])
    named = {address for answer in forward.values() for address in answer.values or ()}
    unknown = [answer.trouble for answer in forward.values() if answer.values is None]
    if not named and unknown:
        checks.append(warn("ehlo", found.name, f"could not be looked up: {unknown[0]}", "try again, or ask another name server"))
    elif not named:
        checks.append(
            fail(
                "ehlo", found.name, "the name in EHLO has no address: many hosts refuse it", "publish an A record, or set hostname"
            )
        )
    for address in found.addresses:
        if why := refusal(address, allow_private=found.private):
            checks.append(
                warn(
                    "address",
                    address,
                    f"{why}: this host is behind NAT, and its public address is not known",
                    "check SPF and reverse DNS of the public address",
                )
            )
            continue
        checks.append(await _reverse(dns, address, found.name, named))
    return checks


async def dnssec(name: str, nameservers: Sequence[str], clock: Clock, *, wanted: bool) -> list[Check]:
    """Look whether the name servers that a transport asks do what DANE rests on; `wanted`: a policy asks for it by name."""
    found = await validation(MailHosts(clock, nameservers, LIFETIME))
    if not found.remedy:
        return [ok("dnssec", name, found.message)]
    if found.sound is False and wanted:
        return [fail("dnssec", name, f"{found.message}: `tls: dane` proves no host", found.remedy)]
    return [warn("dnssec", name, found.message, found.remedy)]


async def port_25(dns: Dns, domains: Sequence[str], host: DirectHost) -> list[Check]:
    """Try to reach an exchanger of the first of `domains` that has one elsewhere, as a stand-in for all exchangers."""
    answers = await dns.ask([(domain, "MX") for domain in domains])
    for domain in domains:
        found = [value.split() for value in answers[domain, "MX"].values or ()]
        exchangers = sorted(
            (int(one[0]), one[1]) for one in found if len(one) == 2 and one[1] != "." and not _same(one[1], host.name)
        )
        if exchangers:
            return [await _greeted(dns, domain, exchangers[0][1], host.port)]
    return [
        warn("port 25", domains[0], "no MX host on another machine to test with", "try with another domain: sesrelay doctor DOMAIN")
    ]


def _same(exchanger: str, name: str) -> bool:
    return exchanger.rstrip(".").lower() == name.rstrip(".").lower()


async def _greeted(dns: Dns, domain: str, name: str, port: int) -> Check:
    addresses = await dns.ask([(name, "A"), (name, "AAAA")])
    target = next((value for found in addresses.values() for value in found.values or ()), None)
    if target is None:
        return warn("port 25", domain, f"its MX host {name} has no address", "try another domain: sesrelay doctor DOMAIN")
    try:
        async with asyncio.timeout(CONNECT):
            reader, writer = await asyncio.open_connection(target, port)
            greeting = await reader.readline()
            writer.close()
    except TimeoutError:
        return fail(
            "port 25", name, "no answer: outbound port 25 seems to be blocked, as with most providers",
            "ask the provider to open it, or send through a relay or SES",
        )  # fmt: skip
    except OSError as error:
        return warn("port 25", name, f"cannot be reached: {error.strerror or error}", "check whether outbound port 25 is open")
    return ok("port 25", name, f"answers: {greeting.decode(errors='replace').strip()[:80]}")


def addresses(source: str | None) -> tuple[str, ...]:
    """Return the addresses from which this host connects outward: the configured one, or the system's choice."""
    if source is not None:
        return (source,)
    found = []
    # Connecting a datagram socket sends nothing; the addresses are those kept for documentation (RFC 5737, RFC 3849).
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((target, 25))
                found.append(str(sock.getsockname()[0]))
        except OSError:
            continue
    return tuple(found)


async def _reverse(dns: Dns, address: str, name: str, named: set[str]) -> Check:
    pointer = ipaddress.ip_address(address).reverse_pointer
    found = (await dns.ask([(pointer, "PTR")]))[pointer, "PTR"]
    if found.values is None:
        return _unknown("reverse dns", address, found)
    names = [value.rstrip(".").lower() for value in found.values]
    remedy = f"set the PTR record of {address} to {name} (at the provider), and the address of {name} to {address}"
    if not names:
        return fail("reverse dns", address, "no PTR record: large providers refuse such hosts", remedy)
    if name.lower() not in names:
        return warn("reverse dns", address, f"PTR says {', '.join(names)}, but EHLO says {name}", remedy)
    if address not in named:
        return warn("reverse dns", address, f"PTR says {name}, which does not resolve back to it", remedy)
    return ok("reverse dns", address, f"{name}, which resolves back to it")


def _unknown(check: str, subject: str, found: Found) -> Check:
    return warn(check, subject, f"could not be looked up: {found.trouble}", "try again, or ask another name server")


def _dkim(key: SigningKey, found: Found) -> Check:
    if found.values is None:
        return _unknown("dkim", key.name, found)
    wanted = key_of(key.value)
    if any(key_of(value) == wanted for value in found.values):
        return ok("dkim", key.name, "matches the signing key")
    message = "has another key than the signing key" if found.values else "missing: signatures cannot be verified"
    return fail("dkim", key.name, message, f"publish TXT {key.value}")


def _dmarc(domain: str, answers: Answers) -> Check:
    for name in (domain, *parents(domain)):
        found = answers[f"_dmarc.{name}", "TXT"]
        if found.values is None:
            return _unknown("dmarc", domain, found)
        there = [value for value in found.values if is_dmarc(value)]
        if len(there) > 1:
            return warn(
                "dmarc",
                domain,
                f"_dmarc.{name} has several DMARC records, which receivers ignore",
                f"keep one of {', '.join(there)}",
            )
        if there:
            return ok("dmarc", domain, f"_dmarc.{name} has a DMARC policy")
    return warn("dmarc", domain, "no policy: large receivers require one", f"publish at _dmarc.{domain} TXT v=DMARC1; p=none")


async def _spf(dns: Dns, domain: str, host: DirectHost, found: Found) -> Check:
    if found.values is None:
        return _unknown("spf", domain, found)
    there = [value for value in found.values if is_spf(value)]
    public = [one for one in host.addresses if not refusal(one, allow_private=host.private)]
    terms = [f"ip{ipaddress.ip_address(one).version}:{one}" for one in public] or [f"a:{host.name}"]
    remedy = _one_record(there, terms)
    if len(there) != 1:
        many = "several SPF records, which receivers treat as an error" if there else "no SPF record: this host is not authorized"
        return fail("spf", domain, many, remedy)
    if not public:
        return warn(
            "spf",
            domain,
            "the public address of this host is not known, so whether SPF covers it is not known either",
            "check it by hand",
        )
    try:
        verdicts = [await Evaluation(dns, one, domain, host.name).verdict() for one in public]
    except Unanswered as trouble:
        return _unknown("spf", domain, Found(None, str(trouble)))
    except Broken as error:
        return fail("spf", domain, f"not valid: {error}", f"correct {there[0]}, and include {' '.join(terms)}")
    uncovered = [one for one, verdict in zip(public, verdicts, strict=True) if verdict != "pass"]
    if uncovered:
        return fail("spf", domain, f"does not cover {', '.join(uncovered)}", remedy)
    return ok("spf", domain, f"covers {', '.join(public)}")


def _one_record(there: Sequence[str], terms: Sequence[str]) -> str:
    """Return what to publish so that these mechanisms count, and what is there does so too."""
    return f"publish TXT {merge(there, terms)}" + (f" in place of {', '.join(there)}" if there else "")
