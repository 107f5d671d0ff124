"""`sesrelay import`: sites out of Postfix's tables, or out of UBOS's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import config_option, json_option, load_or_exit, reason
from sesrelay.cli.reload import changing, take_up
from sesrelay.cli.remedies import fail

if TYPE_CHECKING:
    from sesrelay.setup.sites.postfix import Imported


@click.group("import")
def command() -> None:
    """Create site files from the configuration of another relay."""


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        config_option,
        json_option,
        click.option("--replace", is_flag=True, help="Replace sites of the same name."),
        click.option("--yes", is_flag=True, help="Write without asking."),
    ):
        function = option(function)
    return function


@command.command()
@click.option(
    "--main-cf", type=click.Path(path_type=Path), default="/etc/postfix/main.cf", show_default=True, metavar="FILE",
    help="Postfix's configuration; the tables it names are read too.",
)  # fmt: skip
@_options
def postfix(main_cf: Path, yes: bool, replace: bool, as_json: bool, config: Path) -> None:
    """Import sender_dependent_relayhost_maps and the passwords that belong to them.

    Shows what would be written and what cannot be imported; writes only after you confirm, or with --yes.
    """
    from sesrelay.setup.sites.postfix import from_postfix

    _carry_over(lambda: from_postfix(main_cf), "--main-cf FILE", config, yes=yes, replace=replace, as_json=as_json)


@command.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default="/etc/amazonses", show_default=True, metavar="DIR",
    help="Where UBOS's amazonses keeps its folders.",
)  # fmt: skip
@_options
def ubos(folder: Path, yes: bool, replace: bool, as_json: bool, config: Path) -> None:
    """Import the sites of UBOS's app amazonses, each with its SES SMTP credentials."""
    from sesrelay.setup.sites.postfix import from_ubos

    _carry_over(lambda: from_ubos(folder), "--folder DIR", config, yes=yes, replace=replace, as_json=as_json)


def _carry_over(read: Callable[[], Imported], named: str, config: Path, *, yes: bool, replace: bool, as_json: bool) -> None:
    """`named`: the option that names what is read."""
    from sesrelay.setup.sites import files as site_files

    try:
        found = read()
    except OSError as error:
        elsewhere = f" (use {named} if it is elsewhere)" if isinstance(error, FileNotFoundError) else ""
        fail(f"nothing was imported: {reason(error)}{elsewhere}")
    write = bool(found.sites) and (yes or (not as_json and sys.stdin.isatty()))
    if not as_json:
        _show(found, config)
    if write and not yes:
        write = click.confirm("Write these?", err=True)
    if not write:
        if as_json:
            _print(found, config, written=False)
        elif found.sites:
            click.echo("Nothing was written (to write it, add --yes).", err=True)
        return
    try:
        with changing(config, "nothing was changed; the configuration would have problems"):
            site_files.add(config, found.sites, replace=replace)
    except site_files.SiteExists as there:
        fail(f"{there} exists already; nothing was changed (--replace overwrites it)")
    if as_json:
        _print(found, config, written=True)
    sys.exit(take_up(load_or_exit(config), quiet=as_json))


def _show(found: Imported, config: Path) -> None:
    from sesrelay.setup.sites.files import place_of
    from sesrelay.setup.sites.site import Relay

    for site in found.sites:
        way = site.way
        assert isinstance(way, Relay)
        login = f" as {way.username}" if way.username else ""
        click.echo(f"{place_of(config, site.name)}: {', '.join(site.domains)} by {way.host}:{way.port}{login}")
    if not found.sites:
        click.echo("There is nothing to import.", err=True)
    for note in found.notes:
        click.secho(f"note: {note}", fg="yellow")


def _print(found: Imported, config: Path, *, written: bool) -> None:
    from sesrelay.setup.sites.files import place_of

    sites = [{"name": site.name, "file": str(place_of(config, site.name)), "domains": list(site.domains)} for site in found.sites]
    document = {"sites": sites, "notes": found.notes, "written": written}
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
