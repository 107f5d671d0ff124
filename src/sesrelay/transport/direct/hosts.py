"""Where mail for a domain may be taken, best first: its mail hosts, their addresses looked up once and guarded.

Invariant: what is yielded as an address is no name, and was judged by the guard; nothing else is ever connected to.
Invariant: hosts that are not preferred to us are not among them, whether it is our name that the DNS has or our address.

Source: RFC 5321 §5.1 (order, ourselves among the hosts).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from dns.rdatatype import RdataType

from sesrelay.mail.outcome import Deferred, Failed
from sesrelay.seams import Clock
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.exchangers import addresses
from sesrelay.transport.exchangers.mx import MailHost, MailHosts, Obstacle, loop, no_route, without_ourselves
from sesrelay.transport.net.reach import interleaved

HOST_LIMIT = 20  # of a domain: hundreds whose names nobody answers for, one after the other, would make an attempt of hours


@dataclass(frozen=True, slots=True)
class Place:
    """A mail host that can be connected to. `addresses` in the order to try them."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Finds them. `families` in order of preference; `race`: families take turns instead; `dead`: addresses to try last."""

    dns: MailHosts
    clock: Clock
    dead: DeadHosts
    local_hostname: str
    families: Sequence[RdataType] = (RdataType.A, RdataType.AAAA)
    race: bool = False
    allow_private: bool = False

    async def of(self, domain: str) -> AsyncIterator[Place | Obstacle]:
        """Yield places to try for a normalised domain; and for each host that cannot be used, why."""
        hosts = await self.dns.hosts(domain)
        if isinstance(hosts, Failed | Deferred):
            yield hosts
            return
        preferred = without_ourselves(hosts, self.local_hostname)
        if not preferred:
            yield loop(domain)
            return
        last: list[Place | Obstacle] = []
        left = HOST_LIMIT
        for _, equals in groupby(preferred, attrgetter("preference")):
            hosts = sorted(equals, key=lambda _host: self.clock.chance())[:left]
            left -= len(hosts)
            places = await self._equals(domain, hosts)
            if places is None:  # we are one of these hosts: those after it would hand the mail back to us
                last.append(loop(domain))
                break
            for place in places:
                if isinstance(place, Place) and all(address in self.dead for address in place.addresses):
                    last.append(place)
                else:
                    yield place
        for place in last:
            yield place

    async def _equals(self, domain: str, hosts: list[MailHost]) -> list[Place | Obstacle] | None:
        """Return the places of hosts of one preference; None where one of them is this host."""
        found = await asyncio.gather(*(self.dns.addresses(host.name, self.families) for host in hosts))
        places: list[Place | Obstacle] = []
        for host, result in zip(hosts, found, strict=True):
            place = result if isinstance(result, Failed | Deferred) else self._guarded(domain, host, result)
            if place is None:
                return None
            places.append(place)
        return places

    def _guarded(self, domain: str, host: MailHost, found: Sequence[str]) -> Place | Obstacle | None:
        """Return the host with the addresses where mail may go, or why there are none; None where one is this host's own."""
        allowed: list[str] = []
        why = ""
        for address in interleaved(found) if self.race else found:
            refused = addresses.refusal(address, allow_private=self.allow_private)
            if refused is not None:
                why = refused
            elif not self.allow_private and addresses.is_ours(address):
                return None
            else:
                allowed.append(address)
        if not allowed:
            return no_route(f"the mail host {host.name} of {domain} has an address that is {why}: mail is not sent there")
        return Place(host.name, tuple(sorted(allowed, key=lambda address: address in self.dead)))
