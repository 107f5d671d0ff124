"""What of the configuration AWS and the DNS have to match: where credentials come from, and who sends by which way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from sesrelay.aws.policy import ANY, RAW, RAW_V2, Sending
from sesrelay.aws.session import Source
from sesrelay.config import transports as configured
from sesrelay.config.loading import Loaded
from sesrelay.mail.address import domain_key, split
from sesrelay.policy.patterns import somebody
from sesrelay.policy.routing import RouteRule
from sesrelay.policy.ses_hosts import is_ses, region_of


def source_of(config: configured.SesTransport) -> Source:
    """Return where a transport's credentials come from. Raises: ValueError where the region is unknown"""
    from sesrelay.aws.region import default_region

    secret = config.secret_access_key.get_secret_value() if config.secret_access_key else None
    region = config.region or default_region(config.profile)
    return Source(
        region, config.access_key_id, secret, config.profile, config.role_arn, config.external_id, config.endpoint_url, config.fips,
        config.dual_stack, config.endpoint_id,
    )  # fmt: skip


def leads_to_ses(config: configured.Transport) -> bool:
    """Tell whether mail that leaves this way goes through SES, by its API or by SMTP."""
    if isinstance(config, configured.SmtpTransport):
        return is_ses(config.relays[0])
    return isinstance(config, configured.SesTransport)


def sendings(loaded: Loaded, names: Iterable[str] = (), domains: Sequence[str] = ()) -> list[Sending]:
    """Return what the transports `names` (none: all that lead to SES) send through SES, for the senders that routes give them.

    `domains`: senders to name instead of those of the routes. Raises: ValueError where a region is unknown
    """
    wanted = set(names) or {name for name, config in loaded.config.transports.items() if leads_to_ses(config)}
    found: list[Sending] = []
    for name, config in loaded.config.transports.items():
        if name not in wanted or not leads_to_ses(config):
            continue
        patterns = tuple(dict.fromkeys(a_labels(domain) for domain in domains)) or patterns_to(name, loaded)
        if patterns == ():
            continue
        if patterns is not None and isinstance(config, configured.SesTransport | configured.SmtpTransport) and config.rewrite_from:
            patterns = tuple(dict.fromkeys((*patterns, a_labels(config.rewrite_from))))  # what is not verified is sent as that
        if isinstance(config, configured.SesTransport):
            found.append(_by_api(config, patterns))
        elif isinstance(config, configured.SmtpTransport):
            lists = config.identities_from is not None
            found += [Sending(region, (RAW,), patterns, lists=lists) for host in config.relays if (region := region_of(host))]
    return found


def patterns_to(transport: str, loaded: Loaded) -> tuple[str, ...] | None:
    """Return the sender patterns whose mail may leave by `transport`, domains in A-labels; None: any sender's may."""
    table = loaded.routing
    rest = [rule for rule in (table.default, table.null_sender) if rule is not None]
    if any(transport in rule.transports for rule in rest):
        return None
    return tuple(dict.fromkeys(a_labels(rule.pattern) for rule in table.rules if transport in rule.transports))


def first_sender(transport: str, loaded: Loaded) -> str | None:
    """Return an address that a route gives to `transport`, the postmaster's where it names a domain."""
    for pattern in patterns_to(transport, loaded) or ():
        if not pattern.startswith("*."):
            return somebody(pattern)
    return None


def rules_of(domain: str, loaded: Loaded) -> list[RouteRule]:
    """Return the rules that mail of senders at `domain` may follow: its own, those of its addresses, or what covers it."""
    key = domain_key(domain)
    own = [rule for rule in loaded.routing.rules if "@" in rule.pattern and domain_key(split(rule.pattern)[1]) == key]
    return [*own, loaded.routing.match(f"postmaster@{key}")]


def direct_senders(domain: str, loaded: Loaded) -> list[str]:
    """Return the SPF mechanisms of what sends for a domain without SES: this host, where a route leads directly to MX hosts."""
    terms: list[str] = []
    for rule in rules_of(domain, loaded):
        for config in (loaded.config.transports[name] for name in rule.transports):
            if isinstance(config, configured.DirectTransport):
                address = config.source_address
                terms.append(f"ip{ip_address(address).version}:{address}" if address else f"a:{loaded.config.hostname}")
    return list(dict.fromkeys(terms))


def name_servers(loaded: Loaded) -> tuple[str, ...]:
    """Return whom to ask for the records of senders' domains: those that a direct transport names; empty: the system's."""
    named = (one.nameservers for one in loaded.config.transports.values() if isinstance(one, configured.DirectTransport))
    return next((tuple(servers) for servers in named if servers), ())


def a_labels(pattern: str) -> str:
    """Return a sender pattern with its domain as AWS and the DNS have it; the local part stays as it is written."""
    local, domain = split(pattern) if "@" in pattern else ("", pattern)
    star = "*." if domain.startswith("*.") else ""
    key = star + domain_key(domain.removeprefix("*."))
    return f"{local}@{key}" if local else key


def _by_api(config: configured.SesTransport, patterns: tuple[str, ...] | None) -> Sending:
    trusted = any(header.lower() == "x-ses-configuration-set" for header in config.trusted_headers)
    sets = (ANY,) if trusted else (config.configuration_set,) if config.configuration_set else ()
    arns = tuple(arn for arn in (config.source_arn, config.from_arn, config.return_path_arn) if arn)
    actions = (RAW,) if config.api == "v1" else (RAW_V2, RAW)
    lists = config.preflight or config.rewrite_from is not None
    return Sending(source_of(config).region, actions, patterns, sets, arns, lists)
