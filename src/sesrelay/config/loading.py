"""From files to a configuration that is ready to be used, or to every problem that there is.

Invariant: `load` changes nothing anywhere; it can run beside a daemon, and before a reload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pydantic import SecretStr, ValidationError

from sesrelay.config import addresses, checks, claims, dkim, doors, secrets
from sesrelay.config.compose import SIZE_MAX
from sesrelay.config.document import Document, parse
from sesrelay.config.explain import explain, without_failed
from sesrelay.config.machine import has_ipv6
from sesrelay.config.model import RUN_DIR, STATE_DIR, Config
from sesrelay.config.private import read_regular
from sesrelay.config.problem import ConfigError, KeyPath, Place, Problem
from sesrelay.config.sites import merge, site_files
from sesrelay.mail.address import domain_of
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.routing import RoutingTable
from sesrelay.policy.senders import SenderRules

LOOPBACK_6 = ip_address("::1")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without problems, its defaults filled in and its secrets read.

    `files`: the YAML files in the order read, the main one first. `passed_over`: listeners that the machine cannot have and that
    nobody misses.
    """

    config: Config
    files: tuple[Path, ...]
    routing: RoutingTable
    local: LocalMail
    senders: SenderRules
    passed_over: tuple[str, ...] = ()

    @property
    def ways(self) -> list[str]:
        """The transports to make: `direct`, which is always there, only where a rule leads to it."""
        named = {name for rule in self.routing.all_rules for name in rule.transports}
        return [name for name in self.config.transports if name != "direct" or name in named]

    @property
    def stood_in_for(self) -> frozenset[str]:
        """The machine's own domains, whose envelope senders SES is not given where routing goes by the header From."""
        own = (domain_of(f"@{domain}") for domain in (self.config.hostname, self.local.domain))
        return frozenset(own) if self.config.route_by == "auto" else frozenset()


def load(
    path: Path | str,
    *,
    environ: Mapping[str, str] | None = None,
    now: float | None = None,
    proposed: Mapping[Path, bytes | None] | None = None,
    rehearse: Callable[[Loaded, Document], None] | None = None,
) -> Loaded:
    """Read `path` and the site files beside it.

    `now`: when certificates have to be valid, in Unix seconds; None: their dates do not matter, so that no relay stays
    down, and no verb refuses to work, over a renewal that was forgotten.
    `proposed`: files as if they had that content already, None: as if they were not there; to look before writing.
    `rehearse`: looks at a configuration without problems, and reports what would keep it from being put in force here.

    Raises: ConfigError, with every problem at once
    """
    environ = os.environ if environ is None else environ
    proposed = proposed or {}
    main_path = Path(path)
    document = _read(main_path, environ, proposed, missing="; `sesrelay init` writes one, and --config FILE names another")
    files = [main_path]
    broken = document.broken
    for site_path in _sites(main_path, document, proposed):
        site = _read(site_path, environ, proposed)
        broken = broken or site.broken
        files.append(site_path)
        merge(document, site)
    secrets.anchor_paths(document, environ)
    read = secrets.read_secrets(document, environ, proposed)
    config, failed = _validate(document)
    config = _filled(config, read)
    table = None if broken else _checked(document, config, failed, environ, now)
    if document.problems or table is None:
        raise ConfigError(_in_order(document.problems, files))
    config, passed_over = _as_reachable(config)
    local = LocalMail(config.hostname, config.local.domain, config.local.aliases, config.local.unaliased)
    loaded = Loaded(config, tuple(files), table, local, claims.sender_rules(config.access, local), passed_over)
    if rehearse is not None:
        rehearse(loaded, document)
        if document.problems:
            raise ConfigError(_in_order(document.problems, files))
    return loaded


def _checked(
    document: Document, config: Config, failed: set[str], environ: Mapping[str, str], now: float | None
) -> RoutingTable | None:
    """Report what only shows between keys; return the routes, or None where something that they are made from has a problem."""
    checks.check_names(document)
    checks.check_patterns(document)
    checks.check_aliases(document, config, failed)
    claims.check_claims(document)
    checks.check_identities(document, config)
    checks.check_issuers(document, config)
    checks.check_memory(document, config, failed)
    addresses.check_addresses(document, config, failed)
    doors.check_doors(document, config, failed)
    doors.check_certificates(document, config, failed, environ, now)
    doors.check_users(document, config, failed)
    dkim.check_keys(document, failed, environ)
    if failed & checks.ROUTING or _problems_in(document, checks.ROUTING):
        return None
    checks.check_limits(document, config)
    table = checks.routing_table(document, config)
    checks.check_expectations(document, config, table)
    return table


def _read(path: Path, environ: Mapping[str, str], proposed: Mapping[Path, bytes | None], missing: str = "") -> Document:
    """Read one file; one that cannot be read is a document with that problem. `missing`: what to do where there is none."""
    content = proposed.get(path)
    if content is not None:
        return parse(content, str(path), environ)
    try:
        return parse(read_regular(path, SIZE_MAX)[0], str(path), environ)
    except OSError as error:
        problem = Problem(Place(str(path), 1, 1), "file", f"cannot be read: {_why(error, missing)}")
        return Document(str(path), problems=[problem], broken=True)


def _sites(main: Path, document: Document, proposed: Mapping[Path, bytes | None]) -> list[Path]:
    try:
        return site_files(main, proposed)
    except OSError as error:
        folder = str(main.parent / "sites.d")
        document.problems.append(Problem(Place(folder, 1, 1), "file", f"the folder cannot be read: {_why(error)}"))
        return []


def _why(error: OSError, missing: str = "") -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}{missing}"
    return f"{error.strerror}{' (run this as root, or as a member of its group)' if isinstance(error, PermissionError) else ''}"


def _validate(document: Document) -> tuple[Config, set[str]]:
    """Return the configuration, with something else in place of what failed, and the names of that; see `without_failed`."""
    try:
        return Config.model_validate(document.root), set()
    except ValidationError as error:
        explain(error, document)
        valid, failed = without_failed(document.root, error)
    return Config.model_validate(valid), failed


def _problems_in(document: Document, sections: frozenset[str]) -> bool:
    return any(problem.key.partition(".")[0].partition("[")[0] in sections for problem in document.problems)


def _filled(config: Config, read: Mapping[KeyPath, SecretStr]) -> Config:
    """Put in what follows from other keys, and the secrets that stood in files of their own."""
    transports = {
        name: transport.model_copy(
            update={str(path[2]): secret for path, secret in read.items() if path[:2] == ("transports", name)}
        )
        for name, transport in config.transports.items()
    }
    users = tuple(
        user.model_copy(update={str(path[3]): secret for path, secret in read.items() if path[:3] == ("access", "users", index)})
        for index, user in enumerate(config.access.users)
    )
    token = {str(path[1]): secret for path, secret in read.items() if path[0] == "http"}
    update = {
        "access": config.access.model_copy(update={"users": users}),
        "control": _control(config),
        "maildrop": _maildrop(config),
        "local": config.local.model_copy(update={"domain": config.local.domain or config.hostname}),
        "transports": transports,
        "http": config.http.model_copy(update=token),
    }
    return config.model_copy(update=update)


def _control(config: Config) -> Path:
    """Return the control socket: as named, or in `state_dir` where there is no folder for it under /run."""
    if "control" in config.model_fields_set or RUN_DIR.is_dir():
        return config.control
    return config.state_dir / "control.sock"


def _maildrop(config: Config) -> Path:
    """Return the maildrop: as named, or the system's own for the relay that is the system's; another must not empty it."""
    if "maildrop" in config.model_fields_set or config.state_dir == STATE_DIR:
        return config.maildrop
    return config.state_dir / "maildrop"


def _as_reachable(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Return `config` without listeners on [::1] where the machine has no IPv6, so that one configuration serves all machines.

    One that is the only listener stays: the start then says what is wrong.
    """
    if has_ipv6():
        return config, ()
    here = tuple(one for one in config.listeners if not (one.listen.startswith("[") and ip_address(one.address.host) == LOOPBACK_6))
    if not here or len(here) == len(config.listeners):
        return config, ()
    gone = tuple(one.listen for one in config.listeners if one not in here)
    return config.model_copy(update={"listeners": here}), gone


def _in_order(problems: list[Problem], files: list[Path]) -> list[Problem]:
    order = {str(path): index for index, path in enumerate(files)}
    return sorted(dict.fromkeys(problems), key=lambda p: (order.get(p.place.file, -1), p.place.line, p.place.column, p.key))
