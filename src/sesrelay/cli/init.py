"""`sesrelay init`: the first configuration, from a few questions, each of which is an option too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sesrelay.cli.options import DEFAULT_CONFIG, DOMAIN, PATTERN, REGION, value
from sesrelay.cli.reload import changing
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.secret import secret_from

if TYPE_CHECKING:
    from sesrelay.setup.sites.first_config import Answers
    from sesrelay.setup.sites.site import Api, Relay

T = TypeVar("T")
ADDRESS = value("address")
CREDENTIALS = ("key", "smtp", "machine", "none")
OF_KIND = {"key": ("access_key_id", "secret_access_key_file"), "smtp": ("smtp_username", "smtp_password_file")}


@click.command("init")
@click.option(
    "--hostname", type=DOMAIN, metavar="NAME", help="The name in EHLO and Received. Default: the machine's fully qualified name."
)
@click.option(
    "--credentials", type=click.Choice(CREDENTIALS),
    help="For SES: an access key, SMTP credentials, or those of the machine (a role, a profile); none: do not use SES.",
)  # fmt: skip
@click.option("--region", type=REGION, metavar="R", help="The region of SES.")
@click.option("--access-key-id", metavar="K", help="The access key's id.")
@click.option("--secret-access-key-file", metavar="F", help="The file that holds the secret access key.")
@click.option("--smtp-username", metavar="U", help="The SMTP user name of SES.")
@click.option("--smtp-password-file", metavar="F", help="The file that holds the SMTP password of SES.")
@click.option(
    "--domain",
    "domains",
    type=PATTERN,
    metavar="D",
    multiple=True,
    help="A sender domain whose mail goes through SES; may be repeated.",
)
@click.option("--rest", type=click.Choice(["direct", "ses", "reject"]), help="What to do with mail from all other senders.")
@click.option("--root", type=ADDRESS, metavar="ADDRESS", help="Where this machine's own mail (root's, cron's) goes.")
@click.option("--yes", is_flag=True, help="Do not ask; use the default for each missing answer.")
@click.option("--force", is_flag=True, help="Replace an existing configuration.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, readable=False),
    default=str(DEFAULT_CONFIG),
    show_default=True,
    metavar="FILE",
    help="The file to write.",
)
def command(config: Path, yes: bool, force: bool, **said: Any) -> None:
    """Ask a few questions and write a commented configuration. Changes nothing else."""
    from sesrelay.config.loading import load
    from sesrelay.policy.patterns import somebody
    from sesrelay.setup.files import NewFile, write_files
    from sesrelay.setup.sites.first_config import compose

    if config.exists() and not force:
        fail(f"{config} exists already (--force replaces it{_else_to_do(config)})")
    answers = _answers(said, ask=not yes and sys.stdin.isatty())
    text = compose(answers)
    with changing(config, "nothing was written; the configuration would have problems"):
        load(config, proposed={config: text.encode()})
        config.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_files([NewFile(config, text, config.parent)])
    click.echo(f"wrote {config}")
    if answers.way is not None and not answers.domains and answers.rest != "ses":
        told = "use --domain, --rest ses or `sesrelay site add`"
        click.echo(as_run(f"sesrelay: no mail goes through SES yet: {told}"), err=True)
    click.echo(as_run("next: sesrelay check, then systemctl reload-or-restart sesrelay (or: sesrelay run), then"))
    sender = somebody((answers.domains or (answers.hostname,))[0], "test")
    click.echo(as_run(f"      sesrelay send --from {sender} --to YOU"))


def _else_to_do(config: Path) -> str:
    """Return what there is to do about a configuration that is there, besides writing another."""
    from sesrelay.config.loading import load
    from sesrelay.config.problem import ConfigError

    try:
        load(config)
    except ConfigError:
        return "; to see what is wrong with it: sesrelay check"
    return "; to add a site: sesrelay site add"


def _answers(said: dict[str, Any], *, ask: bool) -> Answers:
    """Return what was said, and what is asked for where somebody can be asked. Raises: click.UsageError"""
    from sesrelay.config.machine import machine_name
    from sesrelay.setup.sites.first_config import Answers

    hostname = _asked(said["hostname"], ask, "The name of this relay in EHLO", DOMAIN, default=machine_name())
    way = _way(said, ask=ask)
    domains: tuple[str, ...] = said["domains"]
    if way is not None and not domains and ask:
        listed = _asked(
            None, ask, "Sender domains whose mail goes through SES (separate them with spaces)", lambda text: text, default=""
        )
        domains = tuple(map(PATTERN, listed.replace(",", " ").split()))
    rest = said["rest"]
    if rest is None and ask:
        choices = ["direct", *(["ses"] if way else []), "reject"]
        rest = click.prompt("Mail from all other senders", type=click.Choice(choices), default="direct", err=True)
    for flag, wanted in (("--domain", bool(domains)), ("--rest ses", rest == "ses")):
        if wanted and way is None:
            raise click.UsageError(f"{flag} needs credentials for SES (--credentials)")
    root = said["root"]
    if root is None and ask:
        root = click.prompt("Address for this machine's own mail (may be empty)", default="", show_default=False, err=True)
    return Answers(hostname, way, domains, rest or "direct", ADDRESS(root) if root else None)


def _way(said: dict[str, Any], *, ask: bool) -> Api | Relay | None:
    from sesrelay.setup.sites.site import Api, Relay

    kind = said["credentials"] or _kind(said)
    if kind is None and ask:
        kind = click.prompt("Credentials for SES", type=click.Choice(CREDENTIALS), default="key", err=True)
    for one, flags in OF_KIND.items():
        idle = next((flag for flag in flags if said[flag] and one != kind), None)
        if idle is not None:
            raise click.UsageError(f"--{idle.replace('_', '-')} can only be used with --credentials {one}")
    if kind == "none" and said["region"]:
        raise click.UsageError("--region can only be used with --credentials key, smtp or machine")
    if kind in (None, "none"):
        return None
    region = _asked(said["region"], ask, "Region of SES", REGION, default="us-east-1")
    if kind == "machine":
        return Api(region)
    flags = OF_KIND[kind]
    questions = ("Access key id", "File with the secret access key")
    if kind == "smtp":
        questions = ("SMTP user name", "File with the SMTP password")
    name = _asked(said[flags[0]], ask, questions[0], lambda text: text.strip(), flag=flags[0])
    secret = _asked(
        said[flags[1]], ask, questions[1], lambda file: secret_from(file, smtp=kind == "smtp", kept_as=None), flag=flags[1]
    )
    if kind == "key":
        return Api(region, name, secret)
    from sesrelay.aws.region import smtp_host

    return Relay(smtp_host(region), username=name, secret=secret)


def _kind(said: dict[str, Any]) -> str | None:
    """Return which credentials the other options speak of."""
    if said["access_key_id"] or said["secret_access_key_file"]:
        return "key"
    if said["smtp_username"] or said["smtp_password_file"]:
        return "smtp"
    return "machine" if said["region"] else None


def _asked(
    given: str | None, ask: bool, question: str, read: Callable[[str], T], *, default: str | None = None, flag: str = ""
) -> T:
    """Return what was given or is answered, read; a wrong answer is asked for again. Raises: click.UsageError"""
    if given is not None:
        return read(given)
    if not ask:
        if default is None:
            raise click.UsageError(f"--{flag.replace('_', '-')} is missing")
        return read(default)
    while True:
        try:
            return read(click.prompt(question, default=default, err=True))
        except click.UsageError as error:
            click.echo(error.message, err=True)
