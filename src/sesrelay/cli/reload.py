"""How a verb that changed the configuration has the running relay take it up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import EX_FAILED, EX_OK

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded


def take_up(loaded: Loaded, *, quiet: bool = False) -> int:
    """Have a running relay reload, say what came of it (`quiet`: only trouble), and return the exit code."""
    from sesrelay.app.operator import DaemonUnreachable, reload_daemon
    from sesrelay.control.client import ControlError

    try:
        problems = asyncio.run(reload_daemon(loaded.config))
    except (DaemonUnreachable, ControlError, OSError) as error:
        click.echo(f"sesrelay: it is written, but the running relay could not be told: {error}", err=True)
        return EX_FAILED
    for problem in problems or ():
        click.echo(f"sesrelay: the running relay keeps its former configuration: {problem}", err=True)
    if problems:
        return EX_FAILED
    if not quiet:
        running = problems is not None
        click.echo("the running relay has taken it up" if running else "no relay is running; it is in force from its start on")
    return EX_OK
