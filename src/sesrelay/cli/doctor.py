"""`sesrelay doctor`: all that keeps mail from arriving, a line each, with the remedy."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from sesrelay.cli.options import DOMAIN, EX_FAILED, EX_OK, config_option, json_option, value
from sesrelay.cli.remedies import as_run

COLOUR = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1, type=DOMAIN)
@click.option(
    "--nameserver",
    "nameservers",
    type=value("nameserver"),
    metavar="IP[:PORT]",
    multiple=True,
    help="Ask this name server; may be repeated. Default: those of direct transports, else the system's.",
)
@click.option("--quiet", is_flag=True, help="Show only warnings and failures.")
@json_option
@config_option
def command(domains: tuple[str, ...], nameservers: tuple[str, ...], quiet: bool, as_json: bool, config: Path) -> None:
    """Check everything that can keep mail from arriving: this machine, the queue, AWS, the DNS. Nothing is changed or sent.

    DOMAIN: the sender domains to check; default: all that the routes name. Exits 1 if any check failed.
    """
    from sesrelay.config.loading import load
    from sesrelay.config.problem import ConfigError
    from sesrelay.setup.checkup.check import Check, document, fail

    checks: list[Check]
    try:
        loaded = load(config)
    except ConfigError as error:
        checks = [fail("configuration", str(one.place), f"{one.key}: {one.message}", "sesrelay check") for one in error.problems]
    else:
        from sesrelay.app.examination import examine

        if sys.stderr.isatty():
            click.echo("looking …", err=True)
        checks = asyncio.run(examine(loaded, domains, nameservers))
    checks = [replace(one, message=as_run(one.message), remedy=one.remedy and as_run(one.remedy)) for one in checks]
    found = document(checks)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for one in checks:
            if quiet and one.status == "ok":
                continue
            click.echo(
                f"{click.style(f'{one.status:<4}', fg=COLOUR[one.status])} {one.check}: {one.subject}: {one.message}", nl=False
            )
            click.echo(f" (do: {one.remedy})" if one.remedy else "")
    sys.exit(EX_OK if found["ok"] else EX_FAILED)
