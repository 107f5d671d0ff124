"""Whether what the name servers say of DNSSEC counts: DANE rests on it, and without it says nothing of a host.

Source: RFC 7672 §2.1 (a resolver that validates, reached by a way that nobody else has); Postfix's dnssec_probe (the root).
"""

from __future__ import annotations

from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.name
import dns.resolver
from dns.rdatatype import RdataType

from sesrelay.transport.exchangers.mx import MailHosts
from sesrelay.transport.exchangers.resolver import in_short

RUN_ONE = "run a DNSSEC-validating resolver on this host (Debian: apt install unbound), and set nameservers: [127.0.0.1]"


@dataclass(frozen=True, slots=True)
class Validation:
    """`sound`: DANE can rest on it; None: nobody knows. `remedy` is empty where there is nothing to do."""

    sound: bool | None
    message: str
    remedy: str = ""


async def validation(hosts: MailHosts) -> Validation:
    """Look whether the name servers vouch for the root, which is signed, and who could speak in their place."""
    servers = ", ".join(hosts.servers) or "no name server"
    if not hosts.trusted:
        return Validation(False, f"{servers} is not on this host, so its DNSSEC answers cannot be trusted", RUN_ONE)
    try:
        found = await hosts.resolver.resolve(dns.name.root, RdataType.NS, search=False)
        vouched = bool(found.response.flags & dns.flags.AD)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        vouched = False
    except (dns.exception.DNSException, OSError) as error:
        look = "check that it answers for the root: dig +dnssec . NS"
        return Validation(None, f"{servers} did not answer a query for the root: {in_short(error)}", look)
    if not vouched:
        return Validation(False, f"{servers} does not validate DNSSEC: even its answer for the root has no AD flag", RUN_ONE)
    if not hosts.on_this_host:
        message = f"{servers} validates DNSSEC, but its answers can be forged on the network between it and this host"
        return Validation(True, message, RUN_ONE)
    return Validation(True, f"{servers} on this host validates DNSSEC")
