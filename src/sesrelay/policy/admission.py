"""Who may hand us mail, and what becomes of addresses that are local or incomplete.

Source: RFC 5321 §2.3.5, §4.5.1 (postmaster is always taken, without a domain and at this host's name).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from sesrelay.mail import orcpt
from sesrelay.mail.address import AddressError, domain_of, normalise, unquoted
from sesrelay.mail.address import check as check_address
from sesrelay.mail.envelope import Recipient
from sesrelay.mail.reply import Reply

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HOPS_MAX = 50  # Received fields; more is a loop (Postfix's hopcount_limit)

TOO_LARGE = Reply(552, "5.3.4", "The message is larger than this relay accepts")
HEADER_MAX = 1024 * 1024  # octets; it is worked on in several copies at once (Exim's header_maxsize is the same)
HEADER_TOO_LARGE = Reply(552, "5.3.4", "The message header is larger than this relay accepts (1 MiB)")
FROM_TOO_LARGE = Reply(552, "5.3.4", "The header From of the message is larger than this relay accepts (16 KiB)")

LOOP = Reply(554, "5.4.6", "Too many hops: this message is in a mail loop")
CLIENT_REFUSED = Reply(
    554, "5.7.1", "This relay accepts mail only from local clients and the networks listed under access.networks"
)


@dataclass(frozen=True, slots=True)
class LocalMail:
    """How mail for this machine is completed. `aliases` maps local parts, `unquoted` and in lower case, to addresses."""

    hostname: str
    domain: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    unaliased: Literal["hold", "reject"] = "hold"


def client_allowed(client: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether the address `client` may connect; an empty one is a Unix socket, which file modes guard."""
    if not client:
        return True
    address = _address(client)
    return any(address.version == network.version and address in network for network in networks)


@lru_cache(maxsize=1024)  # a client that opens a connection for each message is asked about with each
def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(client.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def complete_sender(address: str, local: LocalMail) -> str:
    """Return the envelope sender with a domain: `root` becomes `root@` the local domain."""
    return address if not address or "@" in address else f"{address}@{local.domain}"


def complete_recipient(recipient: Recipient, local: LocalMail) -> Recipient | Reply:
    """Return `recipient` completed and aliased, held where local mail has no alias, or the refusal.

    Local is what has no domain, the local domain's aliases, and whatever is addressed to this host by its own name.
    """
    address = recipient.address
    if not is_local(address, local):
        return recipient
    name = local_name(address)
    followed = follow(name, local)
    if followed:  # to its end, which is a mailbox elsewhere whatever its domain: it was named
        return Recipient(followed[-1][1], recipient.notify, recipient.orcpt or orcpt.made(f"{name}@{local.domain}"))
    if "@" in address and domain_of(address) != domain_of(f"@{local.hostname}"):
        return recipient  # the local domain is a real one with mailboxes elsewhere
    if local.unaliased == "reject" and name.lower() != "postmaster":
        return Reply(550, "5.1.1", f"No alias for {name}: add one under local.aliases")
    return Recipient(f"{name}@{local.domain}", recipient.notify, recipient.orcpt, hold="no_alias")


def follow(name: str, local: LocalMail) -> list[tuple[str, str]]:
    """Return the aliases that mail for the local `name` goes by, each with its address; postmaster without one has root's.

    The last one leads to another domain, to a name without an alias, to itself (a mailbox elsewhere, and the end), or to one
    that was before: a circle.
    """
    followed: dict[str, str] = {}
    while True:
        name = name.lower()
        if name == "postmaster" and name not in local.aliases:
            name = "root"
        if name in followed or name not in local.aliases:
            return list(followed.items())
        address = followed[name] = local.aliases[name]
        if not is_local(address, local):
            return list(followed.items())
        name = local_name(address)


def is_local(address: str, local: LocalMail) -> bool:
    """Tell whether `address` has no domain, the local one, or this host's own name."""
    return "@" not in address or domain_of(address) in (domain_of(f"@{local.domain}"), domain_of(f"@{local.hostname}"))


def local_name(address: str) -> str:
    """Return the local part of an address that may have no domain, without needless quotes."""
    name, at, _ = address.rpartition("@")
    return unquoted(name if at else address)


def check_mailbox(address: str, *, smtputf8: bool, sender: bool) -> Reply | None:
    """Return the refusal of a malformed address, or None; the null sender is well-formed as a sender only."""
    if not address and sender:
        return None
    try:
        check_address(address, smtputf8=smtputf8)
        normalise(address)
    except AddressError as error:
        text = str(error)
        if "SMTPUTF8" in text:
            return Reply(553, "5.6.7", text)
        return Reply(553, "5.1.7" if sender else "5.1.3", f"Malformed address: {text}")
    return None
