"""`sesrelay dkim`: the keys that sign mail which leaves by SMTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from sesrelay.cli.options import DOMAIN, SELECTOR, config_option, json_option, reason
from sesrelay.cli.remedies import fail


@click.group("dkim")
def command() -> None:
    """Manage the DKIM keys that sign mail sent through `direct` and `smtp` transports."""


_FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "bind"]), default="table", show_default=True, help="How to print the records."
)


@command.command("generate")
@click.argument("domain", type=DOMAIN)
@click.option("--selector", type=SELECTOR, metavar="NAME", help="Default: sesrelay, or sesrelay-ed25519.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["rsa", "ed25519"]),
    default="rsa",
    show_default=True,
    help="Every receiver verifies RSA.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The file for the private key. Default: SELECTOR.DOMAIN.pem beside the configuration.",
)
@_FORMAT
@json_option
@config_option
def generate(
    domain: str,
    selector: str | None,
    kind: Literal["rsa", "ed25519"],
    output: Path | None,
    form: str,
    as_json: bool,
    config: Path,
) -> None:
    """Generate a key for DOMAIN, write it to a file of mode 0640, and print its DNS record.

    An existing file is never overwritten.
    """
    from sesrelay.config.dkim_keys import generate as new_key
    from sesrelay.mail.dkim import record, record_name
    from sesrelay.setup.dkim_key import write_key
    from sesrelay.setup.zones.records import TTL

    selector = selector or ("sesrelay" if kind == "rsa" else "sesrelay-ed25519")
    file = (output or config.parent / f"{selector}.{domain}.pem").absolute()
    pem, key = new_key(kind)
    try:
        write_key(file, pem, config)
    except FileExistsError:
        fail(f"{file} exists already (choose another --selector or --output)")
    except OSError as error:
        fail(f"the key cannot be written: {reason(error, file)}")
    name, value = record_name(domain, selector), record(key.algorithm, key.public)
    if as_json:
        found = {"type": "TXT", "name": name, "value": value, "ttl": TTL}
        click.echo(json.dumps({"domain": domain, "selector": selector, "type": kind, "key_file": str(file), "records": [found]}))
        return
    click.echo(f"the private key is in {file}", err=form == "bind")
    if form == "bind":
        click.echo(_bind(name, value))
    else:
        _table(domain, selector, name, value, file, config)
    if kind == "ed25519":
        click.echo("Not every receiver verifies Ed25519: sign with an RSA key as well.", err=form == "bind")


@command.command("show")
@click.argument("domain", required=False, type=DOMAIN)
@_FORMAT
@json_option
@config_option
def show(domain: str | None, form: str, as_json: bool, config: Path) -> None:
    """Print the DNS records of the keys that the configuration names, or of those of DOMAIN."""
    import os

    from sesrelay.cli.options import load_or_exit
    from sesrelay.config.dkim_keys import read_key
    from sesrelay.mail.dkim import record, record_name
    from sesrelay.setup.zones.records import TTL

    found: dict[str, dict[str, object]] = {}
    for transport in load_or_exit(config).config.transports.values():
        for owner, entries in getattr(transport, "dkim", {}).items():
            for entry in entries if domain in (None, owner) else ():
                key = read_key(entry.key_file, os.environ)
                name = record_name(owner, entry.selector)
                found[name] = {"type": "TXT", "name": name, "value": record(key.algorithm, key.public), "ttl": TTL}
    if as_json:
        click.echo(json.dumps({"records": list(found.values())}))
    elif form == "bind":
        for name, one in found.items():
            click.echo(_bind(name, str(one["value"])))
    elif found:
        _rows({name: str(one["value"]) for name, one in found.items()})
    if not found:
        fail(f"no key of {domain or 'any domain'} is named in {config}")


def _bind(name: str, value: str) -> str:
    from sesrelay.setup.zones.formats import quoted
    from sesrelay.setup.zones.records import TTL

    return f"{name}. {TTL} IN TXT ( {quoted(value)} )"


def _rows(records: Mapping[str, str]) -> None:
    width = max(map(len, records)) + 2
    click.echo(f"{'TYPE':<6}{'NAME':<{width}}VALUE")
    for name, value in records.items():
        click.echo(f"{'TXT':<6}{name:<{width}}{value}")


def _table(domain: str, selector: str, name: str, value: str, file: Path, config: Path) -> None:
    shown = file.name if file.parent == config.parent.absolute() else str(file)
    click.echo(f"\npublish in the DNS of {domain}:\n")
    _rows({name: value})
    click.echo(
        f"\nwhen the DNS has it, add to the transport:\n\n    dkim: {{{domain}: {{selector: {selector}, key_file: {shown}}}}}"
    )
