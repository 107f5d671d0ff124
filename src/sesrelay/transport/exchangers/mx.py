"""Finding a domain's mail hosts and their addresses in the DNS.

Answers are kept for as long as their TTL says (`cache`). CNAMEs are followed by the resolver.

Invariant: only what the DNS says for certain (the name does not exist, it has no such record, null MX) fails mail;
SERVFAIL, a timeout, or an answer that makes no sense defers it.

Source: RFC 5321 §5.1; RFC 7505 (null MX); RFC 3463 §3.2, §3.5 (status codes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.resolver
from dns.rdatatype import RdataType

from sesrelay.mail.address import AddressError, domain_key
from sesrelay.mail.outcome import Deferred, Failed, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock
from sesrelay.transport.exchangers.cache import AnswerCache
from sesrelay.transport.exchangers.resolver import PORT, in_short, resolver

LIFETIME = 15.0  # seconds for one look-up, over all name servers
OTHER_FAMILY = 2.0  # seconds that the addresses of one family wait for those of the other
SILENCES = 10  # look-ups in a row without any answer after which all direct delivery waits: then it is not one domain's fault

Obstacle = Failed | Deferred


@dataclass(frozen=True, slots=True)
class MailHost:
    """One MX record, or the domain itself where it has none."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class Records:
    """What the DNS has. `secure`: a name server that can be trusted vouches for it (DNSSEC); `canonical`: behind all CNAMEs."""

    records: Sequence[Any]
    secure: bool
    canonical: str


class Unknown(Exception):
    """The DNS gave no usable answer: it may be there, it may not. `ours`: no name server of ours answered at all."""

    def __init__(self, text: str, *, ours: bool) -> None:
        super().__init__(text)
        self.ours = ours


class Absent(Exception):
    """The DNS says that it is not there. `no_name`: not even the name; `secure`: see `Records`."""

    def __init__(self, no_name: bool, secure: bool = False) -> None:
        super().__init__()
        self.no_name = no_name
        self.secure = secure


class MailHosts:
    """Looks up mail hosts. `nameservers` as `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`; empty: the system's.

    Raises: ValueError for a name server that is none.
    """

    def __init__(self, clock: Clock, nameservers: Iterable[str] = (), lifetime: float = LIFETIME) -> None:
        named = tuple(nameservers)
        self._named = bool(named)
        self.resolver = resolver(named, lifetime)
        self.resolver.cache = AnswerCache(clock)
        self.resolver.set_flags(dns.flags.RD | dns.flags.AD)  # AD: say whether it was validated (RFC 6840 §5.7)

    async def hosts(self, domain: str) -> list[MailHost] | Obstacle:
        """Return the mail hosts of a normalised domain, by preference, or why there are none to go to."""
        try:
            records = await self._look_up(domain, RdataType.MX)
        except Unknown as error:
            return _unknown(f"mail hosts of {domain}", error)
        except Absent as error:
            if error.no_name:
                return _failed("5.1.2", f"the domain {domain} does not exist")
            return [MailHost(0, domain)]
        hosts = [MailHost(int(record.preference), _text(record.exchange)) for record in records]
        named = sorted((host for host in hosts if host.name), key=lambda host: (host.preference, host.name))
        if named:
            return named
        return Failed(Reply(556, "5.1.10", f"the domain {domain} does not accept mail (null MX)"), Scope.RECIPIENT_DOMAIN)

    async def addresses(self, name: str, families: Sequence[RdataType] = (RdataType.A, RdataType.AAAA)) -> list[str] | Obstacle:
        """Return the addresses of a host in the order of `families`, or why there are none.

        Once there are some, a family of which no name server says anything is soon waited for no longer. A host that is named by
        its address, which no MX record should do and many do, is there (as for Postfix).
        """
        if _family(name) in families:
            return [name]
        looking = [asyncio.create_task(self._addresses(name, family)) for family in families]
        try:
            done, others = await asyncio.wait(looking, return_when=asyncio.FIRST_COMPLETED)
            if others:
                await asyncio.wait(others, timeout=None if any(each.exception() for each in done) else OTHER_FAMILY)
        finally:
            for each in looking:
                each.cancel()
        addresses: list[str] = []
        trouble: Unknown | None = None
        for each in filter(asyncio.Task.done, looking):
            error = each.exception()
            if error is None:
                addresses += each.result()
            elif isinstance(error, Unknown):
                trouble = error
            elif not isinstance(error, Absent):
                raise error
        if addresses:
            return addresses
        if trouble is not None:
            return _unknown(f"addresses of {name}", trouble)
        kind = "address" if len(families) > 1 else "IPv4 address" if families[0] is RdataType.A else "IPv6 address"
        only = "" if len(families) > 1 else ", and the configuration allows no other (address_families, source_address)"
        return _failed("5.4.4", f"the mail host {name} has no {kind}{only}")

    async def _addresses(self, name: str, family: RdataType) -> list[str]:
        return [str(record.address) for record in await self._look_up(name, family)]

    async def _look_up(self, name: str, kind: RdataType) -> list[Any]:
        """Return the records. Raises: Absent, Unknown."""
        return list((await self.answer(name, kind)).records)

    @property
    def trusted(self) -> bool:
        """Whether what the name servers say of DNSSEC counts: they were named for us, or are on this host (RFC 7672 §2.1)."""
        return self._named or self.on_this_host

    @property
    def on_this_host(self) -> bool:
        return all(ip_address(address).is_loopback for address, _ in map(_place, self.resolver.nameservers))

    @property
    def servers(self) -> tuple[str, ...]:
        """The name servers, for people."""
        places = map(_place, self.resolver.nameservers)
        return tuple(
            address if port == PORT else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            for address, port in places
        )

    async def answer(self, name: str, kind: RdataType) -> Records:
        """Look up one type of a name. Raises: Absent, Unknown."""
        try:
            found = await self.resolver.resolve(dns.name.from_text(name), kind, search=False)
            return Records(list(found), self._secure(found.response), _text(found.canonical_name))
        except (dns.resolver.NXDOMAIN, dns.name.NameTooLong):  # over 255 octets, as below a long name: there can be no such name
            raise Absent(no_name=True) from None
        except dns.resolver.NoAnswer as error:
            raise Absent(no_name=False, secure=self._secure(error.kwargs["response"])) from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            # A name server that works says SERVFAIL for a domain whose own servers are dead.
            raise Unknown(in_short(error), ours=isinstance(error, dns.exception.Timeout | OSError)) from error

    def _secure(self, response: dns.message.Message) -> bool:
        return bool(response.flags & dns.flags.AD) and self.trusted


def without_ourselves(hosts: Sequence[MailHost], local_hostname: str) -> list[MailHost]:
    """Return the hosts that are preferred to us, all of them where we are not among them (RFC 5321 §5.1)."""
    ours = [host.preference for host in hosts if _same(host.name, local_hostname)]
    return [host for host in hosts if host.preference < min(ours)] if ours else list(hosts)


def no_route(text: str) -> Failed:
    """Return the failure of a domain whose hosts can be found but not used."""
    return _failed("5.4.4", text)


def loop(domain: str) -> Failed:
    """Return the failure of a domain whose mail host is this one, which has no mailbox of it (RFC 5321 §5.1)."""
    text = f"mail for {domain} loops back to this host: it is the domain's mail host, but this relay has no mailboxes"
    return Failed(Reply(554, "5.4.6", text), Scope.RECIPIENT_DOMAIN)


def _place(server: str | dns.nameserver.Nameserver) -> tuple[str, int]:
    """Return address and port of a name server; systems name them by address alone."""
    if isinstance(server, dns.nameserver.AddressAndPortNameserver):
        return server.address, server.port
    return str(server).partition("%")[0], PORT


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _family(name: str) -> RdataType | None:
    """Return the family of an address; None for what is a name."""
    try:
        return RdataType.A if ip_address(name).version == 4 else RdataType.AAAA
    except ValueError:
        return None


def _same(one: str, other: str) -> bool:
    try:
        return domain_key(one) == domain_key(other)
    except AddressError:
        return one.lower() == other.lower()


def _unknown(what: str, error: Unknown) -> Deferred:
    reply = Reply(451, "4.4.3", f"cannot look up the {what}: {error}")
    scope = Scope.TRANSPORT if error.ours else Scope.RECIPIENT_DOMAIN
    tolerance = SILENCES if error.ours else 1
    return Deferred(reply, scope, PauseReason.UNAVAILABLE, "check that the name servers answer", tolerance=tolerance)


def _failed(status: str, text: str) -> Failed:
    return Failed(Reply(550, status, text), Scope.RECIPIENT_DOMAIN)
