"""Who gets in, and how: listeners with their TLS and AUTH, the networks behind them, users, and the page.

Invariant: each check looks at all that is valid, so that one mistake hides no other.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

from sesrelay.config.certificates import wrong_with_certificate, wrong_with_key, wrong_with_pair
from sesrelay.config.document import Document
from sesrelay.config.explain import part
from sesrelay.config.model import Config, Listener
from sesrelay.config.problem import KeyPath, Place, shown
from sesrelay.config.values import UNIX, Network, host_port

# The PHC string format as argon2 writes it: type, version, costs, salt, digest.
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)(?:\$v=[0-9]+)?\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,8})\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}\Z",
    re.ASCII,
)
_MEMORY_MAX = 1024 * 1024  # KiB that one verification may take: a typing mistake must not fell the machine
_PASSES_MAX, _LANES_MAX = 1000, 255


def check_doors(document: Document, config: Config, failed: set[str]) -> None:
    """Report listeners that would serve anybody or nobody, and a page that anybody could use."""
    if not failed & {"listeners", "access"}:
        for index, listener in enumerate(config.listeners):
            if part(("listeners",), index) not in failed:
                for key, problem in (*_networks(listener, config), *_login(listener, config)):
                    document.report(("listeners", index, key), problem)
    if "http" not in failed and not is_loopback(config.http.listen) and not (config.http.token or config.http.token_file):
        document.report(("http", "listen"), "listens beyond loopback without a token (add http.token_file, or listen on 127.0.0.1)")


def is_loopback(listen: str) -> bool:
    """Tell whether only this machine can connect there."""
    return listen.startswith(UNIX) or ipaddress.ip_address(host_port(listen).host.partition("%")[0]).is_loopback


def _networks(listener: Listener, config: Config) -> list[tuple[str, str]]:
    """Return what makes an open relay of a listener, or of no use."""
    if is_loopback(listener.listen) or listener.auth == "required":
        return []
    networks = config.access.networks
    if not any(not network.is_loopback for network in networks):
        return [
            (
                "listen",
                "listens beyond loopback, but access.networks lists only loopback (list the networks that may connect, or listen "
                "on 127.0.0.1)",
            )
        ]
    four = ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv6Network))
    joined: list[Network] = [*four, *six]
    for network in joined:
        if network.prefixlen == 0:
            text = f"an open relay: listens beyond loopback, but access.networks allows everybody ({network})"
            return [("listen", f"{text} (list only the networks that may connect, or use auth: required with tls)")]
    return []


def _login(listener: Listener, config: Config) -> list[tuple[str, str]]:
    match listener.auth:
        case "any":
            if not is_loopback(listener.listen):
                return [
                    ("auth", "any accepts every password and is allowed on loopback only (use required, with tls and access.users)")
                ]
        case "optional" | "required":
            problems = []
            if listener.tls == "none":
                remedy = "set tls: starttls or implicit, with certificate and key"
                loopback = "; on loopback, auth: any accepts every password" if is_loopback(listener.listen) else ""
                problems.append(("auth", f"passwords would be sent in clear text ({remedy}{loopback})"))
            if not config.access.users:
                problems.append(("auth", "nobody could log in (add a user under access.users)"))
            return problems
    return []


def check_certificates(document: Document, config: Config, failed: set[str], environ: Mapping[str, str], now: float | None) -> None:
    """Report certificates and keys that cannot serve. Units: `now` Unix seconds; None: their dates do not matter."""
    if "listeners" in failed:
        return
    told: set[tuple[Path, Path]] = set()
    for index, listener in enumerate(config.listeners):
        if part(("listeners",), index) in failed:
            continue
        if listener.certificate is None or listener.key is None or (pair := (listener.certificate, listener.key)) in told:
            continue
        told.add(pair)
        certificate, key = wrong_with_certificate(pair[0], now), wrong_with_key(pair[1], environ)
        for name, problem in (("certificate", certificate), ("key", key)):
            if problem:
                document.report(("listeners", index, name), problem)
        mismatch = None if certificate or key else wrong_with_pair(*pair)
        if mismatch:
            document.report(("listeners", index, "key"), mismatch)


def check_users(document: Document, config: Config, failed: set[str]) -> None:
    """Report users that stand twice, and hashes that are none, wherever they stand."""
    if "access" in failed:
        return
    first: dict[str, Place] = {}
    for index, user in enumerate(config.access.users):
        if part(("access", "users"), index) in failed:
            continue
        path: KeyPath = ("access", "users", index)
        place = document.value_place((*path, "name"))
        if user.name in first:
            document.report((*path, "name"), f"{shown(user.name)} is defined twice (first at {first[user.name]})")
        first.setdefault(user.name, place)
        problem = wrong_with_hash(user.password_hash.get_secret_value()) if user.password_hash else None
        if problem:
            document.report((*path, "password_hash_file" if user.password_hash_file else "password_hash"), problem)


def wrong_with_hash(value: str) -> str | None:
    """Return what is wrong with an argon2 hash, without repeating it, or None."""
    match = _ARGON2.match(value)
    if match is None:
        return "not an argon2 hash (create one with `sesrelay password-hash`)"
    memory, passes, lanes = map(int, match.groups())
    if memory > _MEMORY_MAX or passes > _PASSES_MAX or lanes > _LANES_MAX or not (lanes and passes and memory >= 8 * lanes):
        return "an argon2 hash that cannot be verified in reasonable time and memory (create another with `sesrelay password-hash`)"
    return None
