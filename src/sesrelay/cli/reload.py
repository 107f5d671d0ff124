"""How a verb changes the configuration: what keeps it from being written ends the verb, and a running relay takes it up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import EX_FAILED, EX_OK, exit_with_problems, reason

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded


def end_interrupted(config: Path, *folders: Path) -> None:
    """Let files that were to change together agree, where the verb that changed them was killed between two, and tell of them.

    They are beside the configuration, with the sites, or in `folders`. Raises: OSError
    """
    from sesrelay.config.sites import FOLDER
    from sesrelay.setup.files import finish_interrupted

    place = config.resolve().parent
    for folder in dict.fromkeys((place, place / FOLDER, *(each.resolve() for each in folders))):
        for file in finish_interrupted(folder):
            click.echo(f"{file}: written as an interrupted run had it ready", err=True)


@contextmanager
def changing(config: Path, refused: str) -> Iterator[None]:
    """End the verb where the configuration would have problems, or cannot be written. `refused`: what was not done."""
    from sesrelay.config.problem import ConfigError

    try:
        end_interrupted(config)
        yield
    except ConfigError as error:
        click.echo(f"sesrelay: {refused}", err=True)
        exit_with_problems(error)
    except OSError as error:
        click.echo(f"sesrelay: {reason(error, config.parent)}", err=True)
        raise SystemExit(EX_FAILED) from None


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
