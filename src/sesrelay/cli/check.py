"""`sesrelay check`: every problem of the configuration, one a line."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sesrelay.cli.options import config_option, load_or_exit


@click.command("check")
@config_option
def command(config: Path) -> None:
    """Validate the configuration and the site files beside it.

    Prints every problem on a line of its own, FILE:LINE:COL: key.path: what is wrong (what was meant), and exits 78;
    exits 0 if there is none. This includes whatever would keep `sesrelay run` from starting here, as this user and in this
    environment. Reported on stderr only: an address that the machine does not have (yet), and a missing region if another user runs
    the relay, as that user's environment may have one.
    """
    from sesrelay.app.rehearsal import rehearse

    uncertain: list[str] = []
    loaded = load_or_exit(
        config, problems_to_stdout=True, now=time.time(), rehearse=lambda *found: uncertain.extend(rehearse(*found))
    )
    model = loaded.config
    sites = len(loaded.files) - 1
    read = f"{config} and {_count(sites, 'site file')}" if sites else str(config)
    listeners = ", ".join(listener.listen for listener in model.listeners)
    if loaded.passed_over:
        listeners += f" (and not on {', '.join(loaded.passed_over)}: this machine has no IPv6)"
    click.secho("ok", fg="green", nl=False)
    click.echo(
        f": {read}: listens on {listeners}; {_count(len(model.transports), 'transport')}, {_count(len(model.routes), 'route')}, "
        f"{_count(len(model.expect), 'expectation')} met"
    )
    for told in uncertain:
        click.echo(f"sesrelay: starting now, as things are here, would fail: {told}", err=True)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
