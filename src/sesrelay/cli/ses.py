"""What the verbs about an SES account share: which account, whose credentials, and how its refusals end a verb."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sesrelay.cli.options import EX_FAILED, EX_TEMPFAIL, REGION, config_option, load_or_exit
from sesrelay.cli.remedies import fail

if TYPE_CHECKING:
    from sesrelay.aws.clients import Clients
    from sesrelay.aws.session import Source
    from sesrelay.config.loading import Loaded

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wish:
    """Which account somebody names on the command line."""

    config: Path
    transport: str | None = None
    region: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """The account that a verb talks to. `loaded` None: there is no configuration; `transport` None: none of it was taken."""

    clients: Clients
    loaded: Loaded | None
    transport: str | None


def account_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `--transport`, `--region`, `--profile` and `--config`, passed as `wish: Wish`."""

    @functools.wraps(function)
    def verb(config: Path, transport: str | None, region: str | None, profile: str | None, **rest: Any) -> Any:
        return function(wish=Wish(config, transport, region, profile), **rest)

    for option in (
        config_option,
        click.option(
            "--profile",
            metavar="NAME",
            help="Use the credentials of this AWS profile (an administrator's) instead of the transport's.",
        ),
        click.option(
            "--region",
            type=REGION,
            metavar="REGION",
            help="The region, if it is not the transport's or no transport is configured yet.",
        ),
        click.option("--transport", metavar="NAME", help="The transport of type ses whose account to use, if there are several."),
    ):
        verb = option(verb)
    return verb


def configuration(config: Path) -> Loaded | None:
    """Return the configuration, or None where nobody named one and there is none yet."""
    context = click.get_current_context(silent=True)
    named = context is not None and context.get_parameter_source("config") is click.core.ParameterSource.COMMANDLINE
    return None if not named and not config.exists() else load_or_exit(config)


def access(wish: Wish, domain: str | None = None) -> Access:
    """Return the account to talk to: that of the transport named, of the route of `domain`, or the only one that there is."""
    from sesrelay.aws.clients import Clients

    loaded = configuration(wish.config)
    try:
        name, source = _source(loaded, wish, domain)
    except ValueError as error:
        fail(f"{error}, or use --region")
    return Access(Clients(source), loaded, name)


def _source(loaded: Loaded | None, wish: Wish, domain: str | None) -> tuple[str | None, Source]:
    from sesrelay.app.ses_access import rules_of, source_of
    from sesrelay.aws.region import default_region
    from sesrelay.aws.session import Source
    from sesrelay.config.transports import SesTransport

    ses = {name: one for name, one in loaded.config.transports.items() if isinstance(one, SesTransport)} if loaded else {}
    if wish.transport is not None and wish.transport not in ses:
        known = f" ({', '.join(ses)})" if ses else ""
        raise click.BadParameter(f"{wish.transport!r} is not a transport of type ses{known}", param_hint="--transport")
    sources = {name: source_of(one.model_copy(update={"region": wish.region or one.region})) for name, one in ses.items()}
    routed = [name for rule in rules_of(domain, loaded) for name in rule.transports if name in ses] if loaded and domain else []
    if not wish.transport and not routed and len(set(sources.values())) > 1:
        raise click.UsageError(f"There are several SES accounts: choose one with --transport {'|'.join(sources)}")
    chosen = wish.transport or next(iter(routed or sources), None)
    if chosen is None:
        return None, Source(wish.region or default_region(wish.profile), profile=wish.profile)
    source = sources[chosen]
    if wish.profile is not None:
        source = Source(source.region, profile=wish.profile, endpoint_url=source.endpoint_url)
    return chosen, source


@contextmanager
def refusals() -> Iterator[None]:
    """End the verb with what AWS or a provider of DNS said, on stderr: 75 for what passes by itself, else 1."""
    from sesrelay.aws.clients import AwsError
    from sesrelay.setup.zones.plan import ZoneError

    try:
        yield
    except (AwsError, ZoneError) as error:
        fail(str(error), EX_TEMPFAIL if getattr(error, "temporary", False) else EX_FAILED)


def confirmed(question: str, yes: bool) -> bool:
    """Ask on a terminal; elsewhere only `--yes` is a yes, and its lack a wrong command line."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: add --yes.")
    return click.confirm(question, err=True)


def domain_name(text: str) -> str:
    """Return a domain in A-labels, lower case. Raises: click.BadParameter"""
    from sesrelay.mail.address import AddressError, domain_key

    try:
        key = domain_key(text)
    except AddressError as error:
        raise click.BadParameter(f"{text!r} is not a domain: {error}") from None
    if "@" in text or "." not in key:
        raise click.BadParameter(f"{text!r} is not a domain (use one like example.com)")
    return key


def domains_option(function: Function) -> Function:
    """Give a verb `--domain`, as `domains`: those that a policy is for."""
    return click.option(
        "--domain",
        "domains",
        multiple=True,
        metavar="DOMAIN",
        type=domain_name,
        help="Use this domain instead of those in the routes; may be repeated.",
    )(function)


def yes_option(function: Function) -> Function:
    """Give a verb `--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)
