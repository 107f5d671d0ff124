"""What is held as it comes: `queue hold --future`, and `queue release --future`, which ends it or lists it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.filters import warn_of_what_cannot_match
from sesrelay.cli.options import EX_FAILED, EX_OK
from sesrelay.cli.progress import with_progress
from sesrelay.cli.remedies import as_run

if TYPE_CHECKING:
    from sesrelay.seams import Desk, Document, Filter, Verb

FUTURE = {
    "hold": "Also hold new mail that matches, until released with --future; also after restarts.",
    "release": "Also stop holding new mail that matches; without a filter: list which new mail is held.",
}
"""What --future does, by the verbs that have it."""


def check_future(wanted: Filter, via: str | None) -> None:
    """Raises: click.UsageError for what cannot be said of mail that has not come yet"""
    if via is not None:
        raise click.UsageError("--via moves only mail that is here already: new mail follows its route")
    if wanted.ids or wanted.states or wanted.older_than is not None:
        raise click.UsageError("--future works only with --sender, --recipient and --transport: the rest is not known for new mail")


async def change_future(desk: Desk, verb: Verb, wanted: Filter, as_json: bool, config: Path) -> int:
    """Hold what comes, too, or no longer; return the exit code."""
    changing = desk.park if verb == "hold" else desk.unpark
    count = await with_progress(desk, verb, wanted, lambda told: changing(wanted, told))
    standing = (await desk.summary())["future_holds"]
    if count is None:
        click.echo("no hold on new mail has exactly this filter; nothing was changed", err=True)
        print_future(standing, err=True)
        return EX_FAILED
    if not count:
        await warn_of_what_cannot_match(desk, wanted, config)
    if as_json:
        click.echo(json.dumps({"changed": count, "future_holds": standing}, ensure_ascii=False))
        return EX_OK
    click.echo(f"{count} deliveries changed")
    if verb == "hold":
        click.echo(as_run(f"New mail that matches is held, until: sesrelay queue release {_as_options(wanted)} --future"))
    else:
        click.echo("New mail that matches is no longer held.")
    return EX_OK


async def list_future(desk: Desk, as_json: bool) -> int:
    """List what is held as it comes; return the exit code."""
    standing = (await desk.summary())["future_holds"]
    if as_json:
        click.echo(json.dumps(standing, ensure_ascii=False))
    elif standing:
        print_future(standing)
    else:
        click.echo("No new mail is held.", err=True)
    return EX_OK


def print_future(standing: list[Document], *, err: bool = False) -> None:
    """Print what is held as it comes, each with the command that ends it."""
    from sesrelay.seams import Filter

    for one in standing:
        wanted = Filter(sender=one["sender"], recipient=one["recipient"], transport=one["transport"])
        click.echo(as_run(f"    since {one['since']}; to end it: sesrelay queue release {_as_options(wanted)} --future"), err=err)


def _as_options(wanted: Filter) -> str:
    """Return the options that name what `wanted` does, as a shell takes them."""
    named = {"--sender": wanted.sender, "--recipient": wanted.recipient, "--transport": wanted.transport}
    return " ".join(f"{option} {shlex.quote(value)}" for option, value in named.items() if value is not None)
