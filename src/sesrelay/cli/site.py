"""`sesrelay site`: one file a site, added, listed and removed without a restart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.options import EX_CONFIG, NAME, PATTERN, REGION, config_option, json_option, load_or_exit, reason, value
from sesrelay.cli.reload import changing, take_up
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.secret import secret_from

if TYPE_CHECKING:
    from sesrelay.setup.sites.site import Secret, Site, Way


@click.group()
def command() -> None:
    """Give a site its own transport, in a file of its own: sites.d/NAME.yaml beside the configuration."""


def _ways(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how a site's mail leaves."""
    for option in (
        click.option("--direct", is_flag=True, help="Send directly to the recipients' MX hosts."),
        click.option("--transport", metavar="T", help="Use this transport of the configuration."),
        click.option(
            "--ses-mail-server", type=value("host"), metavar="H", help="The SMTP host of SES. Default: the one in us-east-1."
        ),
        click.option("--aws-secret-key-file", metavar="F", help="The file with the SMTP password of SES; - reads it from stdin."),
        click.option(
            "--aws-access-key-id",
            metavar="U",
            help="The SMTP user name of SES (this and the next two options are named as in UBOS).",
        ),
        click.option("--secret-access-key-file", metavar="F", help="The file with the secret access key; - reads it from stdin."),
        click.option("--access-key-id", metavar="K", help="An access key for the API of SES."),
        click.option(
            "--region", type=REGION, metavar="R", help="Use the SES API in this region; without a key, boto3 finds credentials."
        ),
    ):
        function = option(function)
    return function


@command.command()
@click.argument("name", type=NAME)
@click.option(
    "--domain", "domains", type=PATTERN, metavar="D", multiple=True, required=True, help="A sender's domain; may be repeated."
)
@_ways
@click.option(
    "--local-user",
    "local_users",
    type=value("local_user"),
    metavar="U",
    multiple=True,
    help="Only this local user may send for the site.",
)
@click.option("--replace", is_flag=True, help="Replace the site of that name, if there is one.")
@config_option
def add(name: str, domains: tuple[str, ...], local_users: tuple[str, ...], replace: bool, config: Path, **way: Any) -> None:
    """Route the mail of a site's domains, and reload the running relay.

    Nothing is written if the configuration would then have a problem.
    """
    from sesrelay.setup.sites import files as site_files

    site = _site(name, domains, local_users, way)
    try:
        with changing(config, f"the site {name} was not added; nothing was changed"):
            (file,) = site_files.add(config, [site], replace=replace)
    except site_files.SiteExists as there:
        fail(f"the site {name} exists already: {there} (--replace overwrites it)")
    click.echo(f"wrote {file}: mail from {', '.join(site.domains)} is sent through {site.transport}")
    sys.exit(take_up(load_or_exit(config)))


@command.command()
@click.argument("name", type=NAME)
@config_option
def remove(name: str, config: Path) -> None:
    """Remove a site's file, and reload the running relay. Queued mail then follows the remaining routes."""
    from sesrelay.setup.sites import files as site_files

    try:
        with changing(config, f"the site {name} was not removed, because the rest of the configuration needs it"):
            file = site_files.remove(config, name)
    except site_files.NoSuchSite:
        known = ", ".join(site.name for site in site_files.listed(config)) or "none"
        fail(f"there is no site {name} (there are: {known})")
    click.echo(f"removed {file}")
    sys.exit(take_up(load_or_exit(config)))


@command.command("list")
@json_option
@config_option
def list_(as_json: bool, config: Path) -> None:
    """List the sites that have a file of their own."""
    from sesrelay.config.sites import FOLDER
    from sesrelay.setup.sites import files as site_files

    try:
        sites = list(site_files.listed(config))
    except OSError as error:
        fail(reason(error))
    if as_json:
        documents = [
            {
                "name": site.name,
                "file": str(site.file),
                "domains": list(site.senders),
                "transports": [{"name": way, "type": kind} for way, kind in site.transports.items()],
                "local_users": list(site.local_users),
                "ok": site.readable,
            }
            for site in sites
        ]
        click.echo(json.dumps(documents, indent=2, ensure_ascii=False))
        return
    if not sites:
        click.echo(f"No site has a file of its own in {config.parent / FOLDER}.", err=True)
    for site in sites:
        ways = ", ".join(f"{way} ({kind})" if kind else way for way, kind in site.transports.items())
        click.echo(f"{site.name:<20} {', '.join(site.senders) or '-':<36} {ways or '-'}")
        if site.local_users:
            click.echo(f"{'':<20} only for {', '.join(site.local_users)}")
        if not site.readable:
            click.secho(as_run(f"{'':<20} has errors: sesrelay check"), fg="red")
    if any(not site.readable for site in sites):
        sys.exit(EX_CONFIG)


def _site(name: str, domains: tuple[str, ...], local_users: tuple[str, ...], way: dict[str, Any]) -> Site:
    """Make the site of what was said. Raises: click.UsageError"""
    from sesrelay.setup.sites.site import Site

    return Site(name, domains, _way(name, way), local_users)


def _way(name: str, said: dict[str, Any]) -> Way:
    from sesrelay.setup.sites.site import SES_SMTP_HOST, Api, Named, Relay

    api = said["region"] or said["access_key_id"] or said["secret_access_key_file"]
    relay = said["aws_access_key_id"] or said["aws_secret_key_file"] or said["ses_mail_server"]
    ways = [way for way in (api, relay, said["transport"], said["direct"]) if way]
    if len(ways) != 1:
        raise click.UsageError(
            "choose one way to send: --region (with --access-key-id and --secret-access-key-file, or without), "
            "--aws-access-key-id and --aws-secret-key-file, --transport, or --direct"
        )
    if said["direct"]:
        return Named("direct")
    if said["transport"]:
        return Named(said["transport"])
    if api:
        if not said["region"]:
            raise click.UsageError("--region is missing: an access key is good for one region of SES at a time")
        _together(said, "access_key_id", "secret_access_key_file")
        secret = _secret(name, said["secret_access_key_file"], smtp=False)
        return Api(said["region"], said["access_key_id"], secret)
    _together(said, "aws_access_key_id", "aws_secret_key_file")
    if not said["aws_access_key_id"]:
        raise click.UsageError("--aws-access-key-id and --aws-secret-key-file are missing: SES requires a login")
    secret = _secret(name, said["aws_secret_key_file"], smtp=True)
    return Relay(said["ses_mail_server"] or SES_SMTP_HOST, username=said["aws_access_key_id"], secret=secret)


def _together(said: dict[str, Any], *names: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if not said[name]]
    if len(missing) == 1:
        raise click.UsageError(f"{missing[0]} is missing")


def _secret(site: str, file: str | None, *, smtp: bool) -> Secret | None:
    return None if file is None else secret_from(file, smtp=smtp, kept_as=f"{site}.secret")
