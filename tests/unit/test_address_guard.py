"""Where mail for strangers must never be taken, whatever their DNS says."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from sesrelay.transport.exchangers.addresses import is_ours, refusal


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.1.1.1", "0.0.0.0", "0.1.2.3", "240.0.0.1", "255.255.255.255",
        "192.0.0.1", "198.18.0.1", "192.0.2.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:100.64.0.1", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::1", "2001::1",
    ],
)  # fmt: skip
def test_refused(address: str) -> None:
    assert refusal(address)


FAMILIES = {  # first and last address of each IPv4 family where no stranger's mail host is
    "loopback": ("127.0.0.0", "127.255.255.255"),
    "private 10": ("10.0.0.0", "10.255.255.255"),
    "private 172": ("172.16.0.0", "172.31.255.255"),
    "private 192": ("192.168.0.0", "192.168.255.255"),
    "link-local": ("169.254.0.0", "169.254.255.255"),
    "shared": ("100.64.0.0", "100.127.255.255"),
    "unspecified": ("0.0.0.0", "0.255.255.255"),
    "multicast": ("224.0.0.0", "239.255.255.255"),
    "reserved": ("240.0.0.0", "255.255.255.255"),
    "documentation": ("192.0.2.0", "203.0.113.255"),
}
WRAPPINGS = {
    "plain": str,
    "mapped": lambda four: str(IPv6Address(int(IPv6Address("::ffff:0:0")) + int(four))),
    "compatible": lambda four: str(IPv6Address(int(four))),
    "NAT64": lambda four: str(IPv6Address(int(IPv6Address("64:ff9b::")) + int(four))),
    "6to4": lambda four: str(IPv6Address((0x2002 << 112) + (int(four) << 80) + 1)),
    "mapped, with a zone": lambda four: f"{IPv6Address(int(IPv6Address('::ffff:0:0')) + int(four))}%eth0",
}
SIXES = {
    "loopback": ("::1", "::1"),
    "unspecified": ("::", "::"),
    "link-local": ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "site-local": ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "private": ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "multicast": ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_is_refused_plain_and_wrapped(family: tuple[str, str], wrap: Callable[[IPv4Address], str]) -> None:
    for address in family:
        assert refusal(wrap(IPv4Address(address))), address


@pytest.mark.parametrize("family", SIXES.values(), ids=SIXES.keys())
def test_every_family_of_ipv6_is_refused(family: tuple[str, str]) -> None:
    for address in family:
        assert refusal(address), address


@pytest.mark.parametrize("kind", ["plain", "mapped", "NAT64", "6to4"])
def test_the_wrapping_itself_is_no_reason(kind: str) -> None:
    assert refusal(WRAPPINGS[kind](IPv4Address("8.8.8.8"))) is None


@pytest.mark.parametrize("kind", ["plain", "mapped", "NAT64", "6to4"])
def test_our_own_address_is_recognised_in_any_wrapping(kind: str) -> None:
    assert is_ours(WRAPPINGS[kind](IPv4Address("127.0.0.1")))
    assert not is_ours(WRAPPINGS[kind](IPv4Address("8.8.8.8")))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "169.253.0.1",
        "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8",
    ],
)  # fmt: skip
def test_allowed(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_private_ones_can_be_allowed(address: str) -> None:
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
    ],
)
def test_where_no_host_can_be_stays_refused(address: str) -> None:
    assert refusal(address, allow_private=True)


def test_an_address_of_this_host_is_recognised() -> None:
    assert is_ours("127.0.0.1")
    assert not is_ours("8.8.8.8")
