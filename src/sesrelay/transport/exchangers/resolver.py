"""How the DNS is asked: by the name servers that are named for it, else by the system's; and what its troubles are called."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rcode
import dns.resolver

from sesrelay.transport.net.plainly import plainly

EDNS_PAYLOAD = 1232  # octets; DNS Flag Day 2020
PORT = 53
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP})  # RFC 6891 §7: what those say to it that do not know it


class _Resolver(dns.asyncresolver.Resolver):
    """Asks once more without EDNS where the name servers do not know it, as the C library does."""

    async def resolve(self, *args: Any, **kwargs: Any) -> dns.resolver.Answer:
        try:
            return await super().resolve(*args, **kwargs)
        except dns.resolver.NoNameservers as error:
            answers = [answer for *_, answer in error.kwargs["errors"] if answer is not None]
            if all(answer.rcode() not in _NO_EDNS for answer in answers):
                raise
        plain = copy.copy(self)
        plain.use_edns(False)
        return await super(_Resolver, plain).resolve(*args, **kwargs)


def resolver(nameservers: Iterable[str], lifetime: float) -> dns.asyncresolver.Resolver:
    """Return what asks. `nameservers` as `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`; empty: the system's.

    Units: `lifetime` seconds for one look-up, over all name servers. Raises: ValueError for a name server that is none.
    """
    named = [_nameserver(text) for text in nameservers]
    try:
        made = _Resolver(configure=not named)
        made.nameservers = named or made.nameservers
    except dns.resolver.NoResolverConfiguration:
        made = _Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]  # as the C library does without /etc/resolv.conf
    made.lifetime = lifetime
    made.use_edns(0, 0, EDNS_PAYLOAD)
    return made


def in_short(error: BaseException) -> str:
    """Return what went wrong with a look-up, for people."""
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no name server has a usable answer (SERVFAIL or refused)"
    return plainly(error)


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    address, port = text, str(PORT)
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        return dns.nameserver.Do53Nameserver(str(ip_address(address)), int(port))
    except ValueError:
        raise ValueError(f"{text!r} is not a name server: write ADDRESS, IPV4:PORT or [IPV6]:PORT") from None
