"""The guard on addresses: where mail for strangers must never be taken, whatever their DNS says.

Invariant: an address that wraps another (mapped, NAT64, 6to4) is judged by the one inside as well.
Invariant: `ipaddress.is_global` is not asked: it is True for 64:ff9b::7f00:1, 2002:7f00:1::, fec0::1 and 224.0.0.1.

Source: RFC 6890 and the IANA special-purpose registries; RFC 4291 §2.5.5.2, RFC 6052 §2.1, RFC 3056 §2 (wrapped).
"""

from __future__ import annotations

import errno
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# Networks that `allow_private_addresses` opens, and what to call them.
_PRIVATE = {
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared address space (carrier-grade NAT)",
    "127.0.0.0/8": "loopback",
    "172.16.0.0/12": "private",
    "192.168.0.0/16": "private",
    "::1/128": "loopback",
    "fc00::/7": "private",
    "fec0::/10": "site-local",
}
# Networks where no mail host can be.
_NOWHERE = {
    "0.0.0.0/8": "unspecified",
    "169.254.0.0/16": "link-local",  # the services that tell a cloud's machines their secrets
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::/96": "reserved",
    "64:ff9b:1::/48": "for local translation",
    "100::/64": "for discarding",
    "2001::/32": "a Teredo tunnel",
    "2001:db8::/32": "for documentation",
    "3fff::/20": "for documentation",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
}

_Network = IPv4Network | IPv6Network


def _table(named: dict[str, str]) -> list[tuple[_Network, str]]:
    return [(IPv4Network(text) if "." in text else IPv6Network(text), why) for text, why in named.items()]


_PRIVATE_NETWORKS = _table(_PRIVATE)
_NOWHERE_NETWORKS = _table(_NOWHERE)
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NOBODYS = "192.0.2.1"  # RFC 5737: can be bound only where every address can


@lru_cache(4096)
def refusal(address: str, *, allow_private: bool = False) -> str | None:
    """Say what kind of address this is where mail must not go to it, or None where it may."""
    parsed = ip_address(address.partition("%")[0])
    inner = _wrapped(parsed)
    for candidate in (parsed,) if inner is None else (parsed, inner):
        why = _named(candidate, _PRIVATE_NETWORKS)
        if why is None:
            why = _named(candidate, _NOWHERE_NETWORKS)
        elif allow_private:
            continue
        if why is not None:
            return why
    return None


def is_ours(address: str) -> bool:
    """Tell whether `address`, or the one wrapped in it, belongs to an interface of this host: only then can a socket be bound
    to it.

    Where the kernel lets any address be bound (net.ipv4.ip_nonlocal_bind) nothing is known, and the answer is False.
    """
    inner = _wrapped(ip_address(address.partition("%")[0]))
    return (_can_bind(address) or (inner is not None and _can_bind(str(inner)))) and not _can_bind(_NOBODYS)


def _wrapped(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    return None


def _named(address: IPv4Address | IPv6Address, networks: list[tuple[_Network, str]]) -> str | None:
    for network, why in networks:
        if address.version == network.version and address in network:
            return why
    return None


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return True
