"""By what the verbs of `queue` choose deliveries, and what is said of a choice that nothing can meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.words import seconds

if TYPE_CHECKING:
    from sesrelay.seams import Desk, Filter

STATE_COLOUR = {"queued": "yellow", "in_flight": "cyan", "held": "magenta", "delivered": "green", "failed": "red"}
ALL_OF_A_DOMAIN = "*@example.com matches a whole domain"
ADDRESS = "use one like bob@example.com, or *@example.com"


def filter_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which deliveries are chosen."""
    for option in (
        click.option("--older-than", metavar="TIME", type=seconds, help="Accepted longer ago than this, for example 4h or 30m."),
        click.option("--transport", metavar="NAME", help="Waiting for this transport."),
        click.option("--recipient", metavar="ADDRESS", help="An address, or *@example.com."),
        click.option("--sender", metavar="ADDRESS", help="An address, or *@example.com."),
        click.option("--state", "states", multiple=True, type=click.Choice(list(STATE_COLOUR)), help="May be repeated."),
    ):
        function = option(function)
    return function


def filter_of(ids: tuple[str, ...], chosen: dict[str, Any]) -> Filter:
    """Return what the arguments and `filter_options` have chosen."""
    from sesrelay.mail.delivery import State
    from sesrelay.seams import Filter

    states = tuple(State(name) for name in chosen["states"])
    return Filter(ids, states, chosen["sender"], chosen["recipient"], chosen["transport"], chosen["older_than"])


def names_any(wanted: Filter) -> bool:
    from sesrelay.seams import Filter

    return wanted != Filter()


async def warn_of_what_cannot_match(desk: Desk, wanted: Filter, config: Path) -> None:
    """Say on stderr which parts of a filter nothing can match; for where nothing did."""
    for option, text in (("--sender", wanted.sender), ("--recipient", wanted.recipient)):
        why = None if text is None else _no_address(text)
        if why is not None:
            click.echo(f"sesrelay: {option} {text} {why}", err=True)
    if wanted.transport:
        known = {*_configured(config), *filter(None, (await desk.summary())["by_transport"])}
        if wanted.transport not in known:
            click.echo(f"sesrelay: there is no transport {wanted.transport}; there are: {', '.join(sorted(known))}", err=True)


def _no_address(text: str) -> str | None:
    """Return why no address is what `text` says, with what may be meant; None where one may be."""
    from sesrelay.mail.address import AddressError, domain_key, normalise

    if text in ("", "<>"):  # the null sender
        return None
    local, at, domain = text.rpartition("@")
    try:
        if not at:
            meant = f"*@{domain_key(text)} matches the whole domain" if "." in text else ADDRESS
            return f"matches no address ({meant})"
        normalise(text if local not in ("", "*") else f"x@{domain}")
    except AddressError:
        return f"matches no address ({ADDRESS})"
    return f"is one address with a * in it ({ALL_OF_A_DOMAIN})" if local != "*" and "*" in local else None


def _configured(config: Path) -> Iterator[str]:
    """Yield the transports that there may be; none of a configuration that cannot be read: others tell of that."""
    from sesrelay.config.loading import load
    from sesrelay.config.problem import ConfigError
    from sesrelay.policy.ladder import FOLDER

    yield FOLDER
    try:
        yield from load(config).config.transports
    except ConfigError:
        return
