"""What only shows between keys: names that lead nowhere, patterns that stand twice, expectations.

Invariant: each check looks at the raw values or at sections that are valid, so that one mistake hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator

from sesrelay.config.certificates import wrong_with_issuers
from sesrelay.config.document import Document
from sesrelay.config.model import Config, alias_name
from sesrelay.config.problem import KeyPath, Place, meant, one_of, shown
from sesrelay.config.routes import NullSenderTarget, Route
from sesrelay.config.transports import DirectTransport, SesTransport, SmtpTransport
from sesrelay.mail.address import AddressError
from sesrelay.mail.delivery import Priority
from sesrelay.policy.admission import LocalMail, follow, is_local, local_name
from sesrelay.policy.budget import COPIES_IN, COPIES_OUT
from sesrelay.policy.ladder import FOLDER
from sesrelay.policy.patterns import domain_of_pattern, pattern_key
from sesrelay.policy.routing import RouteRule, RoutingTable
from sesrelay.policy.ses_hosts import region_of

# What routing and the expectations are made from.
ROUTING = frozenset({"hostname", "local", "transports", "routes", "default_route", "null_sender_route", "route_by", "expect"})


def check_names(document: Document) -> None:
    """Report transports that are named and not there."""
    transports = document.root.get("transports")
    known = list(transports) if isinstance(transports, dict) else []
    if FOLDER in known:
        document.report(("transports", FOLDER), "is the folder for bounces that cannot be sent (use another name)", at_key=True)
    if "direct" not in known:
        known.append("direct")
    for path, name in _transport_names(document):
        if name not in known:
            document.report(path, f"there is no transport {shown(name)} {meant(name, known)}")


def check_patterns(document: Document) -> None:
    """Report patterns that two routes claim, compared as mail is: case and IDNA aside."""
    first: dict[str, Place] = {}
    for path, pattern in _patterns(document):
        try:
            key = pattern_key(pattern)
        except AddressError:
            continue  # reported as no pattern already
        if key in first:
            document.report(path, f"{shown(pattern)} is defined twice (first at {first[key]})")
        first.setdefault(key, document.value_place(path))


def check_aliases(document: Document, config: Config, failed: set[str]) -> None:
    """Report aliases of one name, and those that lead in a circle."""
    if failed & {"hostname", "local"}:
        return
    written: dict[str, str] = {}
    for each in document.get(("local", "aliases")) or ():
        first = written.setdefault(alias_name(each), each)
        if first != each:
            at = document.key_place(("local", "aliases", first))
            what = f"is the same name as {shown(first)} (at {at}): upper and lower case and unnecessary quotes make no difference"
            document.report(("local", "aliases", each), what, at_key=True)
    local = LocalMail(config.hostname, config.local.domain, config.local.aliases)
    told: set[str] = set()
    for name in config.local.aliases:
        circle = _circle(name, local)
        if circle and not told & set(circle):
            paths = [("local", "aliases", written[each]) for each in circle]
            others = ", ".join(f"{shown(path[-1])} (at {document.key_place(path)})" for path in paths[1:])
            document.report(paths[0], f"forms a loop with {others}: none of them leads to a mailbox", at_key=True)
        told.update(circle)


def _circle(name: str, local: LocalMail) -> list[str]:
    """Return the aliases that mail for `name` would go round by; one that leads to itself is none."""
    followed = follow(name, local)
    names, end = [each for each, _ in followed], followed[-1][1]
    back = local_name(end).lower()
    return names[names.index(back) :] if is_local(end, local) and back in names[:-1] else []


def check_identities(document: Document, config: Config) -> None:
    """Report transports that are to list the verified identities for another, and cannot."""
    for name, way in config.transports.items():
        if not isinstance(way, SmtpTransport) or way.identities_from is None:
            continue
        path, other = ("transports", name, "identities_from"), config.transports.get(way.identities_from)
        able = [each for each, one in config.transports.items() if isinstance(one, SesTransport)]
        if not isinstance(other, SesTransport):
            named = shown(way.identities_from)
            what = f"there is no transport {named}" if other is None else f"{named} is of type {other.type}, not ses"
            document.report(path, f"{what} {meant(way.identities_from, able)}")
        elif other.region and other.region != (here := region_of(way.relays[0])):
            document.report(path, f"{shown(way.identities_from)} is in {other.region} (use a transport of type ses in {here})")


def check_issuers(document: Document, config: Config) -> None:
    """Report files of trusted issuers that a transport needs and cannot use. Where nothing is verified, none is read."""
    for name, way in config.transports.items():
        if not isinstance(way, SmtpTransport | DirectTransport) or way.ca_file is None:
            continue
        levels = {way.tls, *(way.tls_policy.values() if isinstance(way, DirectTransport) else ())}
        problem = wrong_with_issuers(way.ca_file) if levels & {"required", "implicit", "mta-sts"} else None
        if problem:
            document.report(("transports", name, "ca_file"), problem)


def check_memory(document: Document, config: Config, failed: set[str]) -> None:
    """Report limits under which the largest message that is promised could never pass."""
    limits = config.limits
    needed = (COPIES_IN + COPIES_OUT) * limits.message_size
    if "limits" not in failed and limits.memory < needed:
        named = "memory" if "memory" in limits.model_fields_set else "message_size"
        document.report(
            ("limits", named),
            f"messages of {_mib(limits.message_size)} need limits.memory of at least {_mib(needed)} (it is {_mib(limits.memory)})",
        )


def _mib(octets: int) -> str:
    return f"{octets / 2**20:.4g}MiB"


def routing_table(document: Document, config: Config) -> RoutingTable:
    """Make the table of a configuration that has no problem in what `ROUTING` names."""
    rules = [
        RouteRule(
            pattern,
            _source(document, ("routes", index, "sender", number)),
            route_name(route),
            route.transports,
            Priority[route.priority.upper()],
            route.reject,
            route.limits,
            route.priority_header or "",
        )
        for index, route in enumerate(config.routes)
        for number, pattern in enumerate(route.sender)
    ]
    target = config.default_route
    default = RouteRule("default_route", _source(document, ("default_route",)), "default", target.transports, reject=target.reject)
    null, source = config.null_sender_route, _source(document, ("null_sender_route",))
    null_rule = RouteRule("null_sender_route", source, "null", null.transports) if isinstance(null, NullSenderTarget) else None
    domains = (config.hostname, config.local.domain)
    return RoutingTable(rules, default, null_rule, route_by=config.route_by, local_domains=domains, null_source=source)


def check_expectations(document: Document, config: Config, table: RoutingTable) -> None:
    """Report expectations that the routes do not meet, with the rule that decides and the one that was hoped for."""
    for index, expected in enumerate(config.expect):
        sender = expected.sender
        winner, considered = table.explain(sender)
        met = winner.reject if expected.reject else not winner.reject and _as_expected(document, index, expected.transport, winner)
        if met:
            continue
        went = "is refused" if winner.reject else f"goes by {one_of(winner.transports)}"
        wanted = "refused" if expected.reject else one_of(expected.transport or ())
        rules = {rule.pattern: rule for rule in (*table.rules, table.default)}
        hoped = [
            other
            for other in considered
            if (rule := rules.get(other.rule))
            and (rule.reject if expected.reject else set(expected.transport or ()) & set(rule.transports))
        ]
        hint = f"; not by {hoped[0].rule}{_at(hoped[0].source)}: {hoped[0].why}" if hoped else ""
        document.report(
            ("expect", index),
            f"mail from {sender or '<>'} {went} by the rule {winner.pattern}{_at(winner.source)}, not {wanted} as expected{hint}",
        )


def _at(source: str) -> str:
    return f" ({source})" if source else ""


def route_name(route: Route) -> str:
    return route.name or domain_of_pattern(route.sender[0])


def check_limits(document: Document, config: Config) -> None:
    """Report routes of one name that differ in their limits: what a name has sent is counted in one place."""
    first: dict[str, tuple[int, Route]] = {}
    for index, route in enumerate(config.routes):
        name = route_name(route)
        before, other = first.setdefault(name, (index, route))
        if other.limits != route.limits:
            path: KeyPath = ("routes", index, "name" if route.name else "sender")
            document.report(
                path,
                f"the route at {document.value_place(('routes', before))} has the same name {shown(name)} but other limits "
                "(give one of them another name)",
            )


def _as_expected(document: Document, index: int, wanted: tuple[str, ...] | None, winner: RouteRule) -> bool:
    # One name: who comes first. A list: the whole order.
    if isinstance(document.get(("expect", index, "transport")), list):
        return winner.transports == wanted
    return winner.transports[:1] == wanted


def _source(document: Document, path: KeyPath) -> str:
    """Return FILE:LINE, or nothing for a rule that stands in no file."""
    if path[:1] not in document.spots:
        return ""
    place = document.value_place(path)
    return f"{place.file}:{place.line}"


def _transport_names(document: Document) -> Iterator[tuple[KeyPath, str]]:
    places: list[KeyPath] = [("default_route", "transport"), ("null_sender_route", "transport")]
    for section in ("routes", "expect"):
        entries = document.root.get(section)
        places += [(section, index, "transport") for index in range(len(entries) if isinstance(entries, list) else 0)]
    for path in places:
        yield from document.texts(path)


def _patterns(document: Document) -> Iterator[tuple[KeyPath, str]]:
    routes = document.root.get("routes")
    for index in range(len(routes) if isinstance(routes, list) else 0):
        yield from document.texts(("routes", index, "sender"))
