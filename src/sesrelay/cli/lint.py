"""`sesrelay lint`: what SES would take of a message, what would be changed and why."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from sesrelay.cli.options import EX_FAILED, EX_OK, config_option, json_option, load_or_exit
from sesrelay.cli.route import bare, refuse_malformed

if TYPE_CHECKING:
    from sesrelay.app.lint import Finding


@click.command("lint")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--from", "sender", metavar="A", required=True, help="The envelope sender; '<>' is the null sender.")
@click.option("--to", "recipients", metavar="B", required=True, multiple=True, help="A recipient; may be repeated.")
@click.option("--transport", metavar="NAME", help="Try this SES transport instead of the route's. Default: the route's first.")
@click.option(
    "--write",
    metavar="OUT.eml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the message that SES would get to this file.",
)
@json_option
@config_option
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    sender: str,
    recipients: tuple[str, ...],
    transport: str | None,
    write: Path | None,
    as_json: bool,
    config: Path,
) -> int:
    """Check whether SES would accept the message in FILE ('-': standard input), and show what would be changed and why.

    Nothing is sent, and neither AWS nor the DNS is asked. Exits 0 if SES would accept it, 1 if not. Without a configuration
    file, an SES transport with default settings is assumed.
    """
    sender = bare(sender)
    refuse_malformed(sender, "--from", null_allowed=True)
    for address in recipients:
        refuse_malformed(bare(address), "--to")
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    assumed = context.get_parameter_source("config") is ParameterSource.DEFAULT and not config.exists()
    loaded = None if assumed else load_or_exit(config)
    from sesrelay.app.lint import lint

    try:
        found = lint(data, sender, [bare(address) for address in recipients], time.time(), loaded, transport)
    except KeyError as error:
        raise click.BadParameter(f"{error.args[0]!r} is not a transport that leads to SES", param_hint="--transport") from None
    if write is not None and found.content is not None:
        try:
            write.write_bytes(found.content)
        except OSError as error:
            raise click.ClickException(f"{write} cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps(_document(found), indent=2, ensure_ascii=False))
    else:
        _explain(found)
    return EX_FAILED if found.problems else EX_OK


def _document(found: Finding) -> dict[str, object]:
    return {
        "ok": not found.problems,
        "verdict": found.verdict,
        "sender": found.sender,
        "source": found.source,
        "recipients": found.recipients,
        "route": found.route,
        "transport": found.transport,
        "size": found.size or None,
        "changes": [{"change": each.change, "why": each.why} for each in found.changes],
        "problems": found.problems,
        "notes": found.notes,
    }


def _explain(found: Finding) -> None:
    if found.problems:
        click.secho("SES would not accept it", fg="red")
    elif found.verdict == "changed":
        click.secho("SES would accept it, with changes", fg="yellow")
    else:
        click.secho("SES would accept it unchanged", fg="green")
    for problem in found.problems:
        click.echo(f"  {problem}")
    for each in found.changes:
        click.echo(f"  {each.change}" + (f": {each.why}" if each.why else ""))
    if found.content is not None:
        way = f" through {found.transport}" if found.transport else ""
        click.echo(f"  from {found.source} to {', '.join(found.recipients) or 'nobody'}, {found.size} octets{way}")
    for note in found.notes:
        click.echo(f"  note: {note}")
