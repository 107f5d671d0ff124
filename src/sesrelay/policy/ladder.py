"""How a bounce of ours travels: from the way that its own sender's domain names down to a folder on this machine.

The rungs: the route of its header From; SES as `mailer-daemon@` a domain that SES knows; the recipient's own mail
hosts, with the null sender; the folder. It is on one at a time, and steps down where that one cannot serve.

Invariant: it only ever steps down, to a way that was not tried, and the folder is always below: no bounce is lost, and
none goes in circles.

Source: docs/decisions/0021; RFC 5321 §4.5.5 (the null sender); SES refuses a null Source, hence `mailer-daemon@`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sesrelay.mail.address import domain_of
from sesrelay.mail.envelope import Descent, Rung
from sesrelay.policy.routing import RouteRule, RoutingTable

FOLDER = "undeliverable"
"""The name of the last rung, as a transport; the configuration can have none of that name."""

# There is no such mailbox or domain (RFC 3463 §3.2, §3.3): another way to it finds none either.
_NOBODY = re.compile(r"5\d\d 5\.(?:1\.(?:1|2|3|6|10)|2\.1)\b")


@dataclass(frozen=True, slots=True)
class Ladder:
    """What one configuration makes the rungs of: transports by name. `ses`: those through which SES sends.

    `own`: this machine's domains, which a bounce may speak for; of the domains above them only those that have a route.
    """

    ses: frozenset[str] = frozenset()
    direct: str | None = None
    own: tuple[str, ...] = ()


def daemon_of(domain: str) -> str:
    return f"mailer-daemon@{domain}"


def rule(descent: Descent, sender: str, table: RoutingTable, ladder: Ladder) -> RouteRule:
    """Return where a report on that rung goes, by the configuration in force; without transports where it cannot."""
    found = table.match(sender)
    if descent.rung is Rung.FOLDER:
        return replace(found, transports=(FOLDER,), reject=False)
    if descent.rung is Rung.DIRECT:
        return replace(found, transports=(ladder.direct,) if ladder.direct else (), reject=False)
    names = found.transports if descent.rung is Rung.ROUTE else (name for name in found.transports if name in ladder.ses)
    return replace(found, transports=tuple(name for name in names if _tried(name, sender, ladder) not in descent.tried))


def start(descent: Descent, sender: str, table: RoutingTable, ladder: Ladder) -> tuple[Descent, str]:
    """Return the first rung, from that of `descent` down, that has a way; and the report's sender there."""
    if descent.rung is Rung.ROUTE:
        way = rule(descent, sender, table, ladder)
        if way.transports and not way.reject:
            return descent, sender
    if descent.rung <= Rung.SES:
        for address in _speakers(descent, sender, table, ladder):
            lower = replace(descent, rung=Rung.SES)
            if rule(lower, address, table, ladder).transports:
                return lower, address
    if descent.rung <= Rung.DIRECT and ladder.direct and ladder.direct not in descent.tried:
        return replace(descent, rung=Rung.DIRECT), sender
    return replace(descent, rung=Rung.FOLDER), sender


def below(descent: Descent, sender: str, transport: str, reply: str, table: RoutingTable, ladder: Ladder) -> tuple[Descent, str]:
    """Return where a report goes that `transport` could not take to its recipient, as `reply` says."""
    tried = replace(descent, tried=(*descent.tried, _tried(transport, sender, ladder)))
    if _NOBODY.match(reply):
        return replace(tried, rung=Rung.FOLDER), sender
    return start(tried, sender, table, ladder)


def _speakers(descent: Descent, sender: str, table: RoutingTable, ladder: Ladder) -> Iterator[str]:
    """Yield whom a report may come from through SES, the nearest to its own sender first."""
    yield sender
    for domain in (*descent.domains, *ladder.own):
        yield daemon_of(domain)
    for domain in ladder.own:
        while domain := domain.partition(".")[2]:
            if table.match(daemon_of(domain)) is not table.default:
                yield daemon_of(domain)


def _tried(transport: str, sender: str, ladder: Ladder) -> str:
    """Return a way as `Descent.tried` has it: SES is another one for each domain that it sends as."""
    return f"{transport} as {domain_of(sender)}" if transport in ladder.ses else transport
