"""A site as a value, and as the file that holds all of it: its way out, its route, who may send for it, what it expects."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from sesrelay.policy.patterns import somebody

SES_SMTP_HOST = "email-smtp.us-east-1.amazonaws.com"
"""What UBOS's app took where a site named none."""

IMPLICIT_TLS = (465, 2465)


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: a file that exists, or, with `text`, one to be written. `name`: as the configuration says it."""

    name: str
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Api:
    """SES by its API. Without a key, boto3's own chain finds credentials."""

    region: str
    access_key_id: str | None = None
    secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay by SMTP, SES's own endpoint among them. `tls` None: by its port, and by whether there is a login."""

    host: str
    port: int = 587
    username: str | None = None
    secret: Secret | None = None
    tls: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A transport that the configuration has already, `direct` among them."""

    transport: str


Way = Api | Relay | Named


@dataclass(frozen=True, slots=True)
class Site:
    """`domains`: patterns as routes have them. `local_users`: who alone may send for them."""

    name: str
    domains: tuple[str, ...]
    way: Way
    local_users: tuple[str, ...] = ()

    @property
    def transport(self) -> str:
        """The name of its way out: its own, or the one it shares."""
        return self.way.transport if isinstance(self.way, Named) else self.name

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Secrets that are to be written beside the file."""
        secret = None if isinstance(self.way, Named) else self.way.secret
        return (secret,) if secret is not None and secret.text is not None else ()


def compose(site: Site) -> str:
    """Return the site's file."""
    document: dict[str, Any] = {}
    if not isinstance(site.way, Named):
        document["transports"] = {site.transport: transport_of(site.way)}
    document["routes"] = [{"sender": list(site.domains), "name": site.name, "transport": site.transport}]
    if site.local_users:
        document["access"] = {"local_users": {user: list(site.domains) for user in site.local_users}}
    document["expect"] = [{"sender": somebody(pattern), "transport": site.transport} for pattern in site.domains]
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return (
        f"# The site {site.name}, written by `sesrelay site add`. You may edit it: then run `sesrelay check` and\n"
        f"# `systemctl reload sesrelay`. To remove it: `sesrelay site remove {site.name}`.\n{text}"
    )


def transport_of(way: Api | Relay) -> dict[str, Any]:
    """Return the transport as the configuration has it."""
    if isinstance(way, Api):
        found: dict[str, Any] = {"type": "ses", "region": way.region}
        if way.access_key_id is not None and way.secret is not None:
            found |= {"access_key_id": way.access_key_id, "secret_access_key_file": way.secret.name}
        return found
    found = {"type": "smtp", "host": way.host, "port": way.port}
    if way.port in IMPLICIT_TLS:
        found["tls"] = "implicit"
    elif way.tls is not None or way.username is not None:
        found["tls"] = way.tls or "required"
    if way.username is not None and way.secret is not None:
        found |= {"username": way.username, "password_file": way.secret.name}
    return found


def relay_host(text: str) -> tuple[str, int, bool]:
    """Split a next hop as Postfix writes it, `[host]:port`, `host:port` or `host`; the last: MX records are meant.

    Raises: ValueError. Source: transport(5), «RESULT FORMAT».
    """
    found = re.match(r"(?:(?:relay|smtp):)?(\[[^\]]+\]|[^:\[\]]+)(?::([0-9]{1,5}|[a-z]+))?\Z", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a next hop")
    named, service = found.group(1), found.group(2) or "25"
    services = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}
    if not service.isdecimal() and service not in services:
        raise ValueError(f"{text!r} names an unknown service")
    port = int(service) if service.isdecimal() else services[service]
    host = named.strip("[]").removeprefix("ipv6:")
    return host, port, not named.startswith("[") and not _is_ip(host)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
