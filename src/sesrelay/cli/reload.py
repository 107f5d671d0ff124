"""`sesrelay reload`, and how other verbs change the configuration: what keeps it from being written ends the verb, and a running
relay takes it up.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import EX_FAILED, EX_OK, EX_TEMPFAIL, EX_UNAVAILABLE, config_option, exit_with_problems, reason
from sesrelay.cli.remedies import as_run, fail

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded


@click.command("reload")
@config_option
def command(config: Path) -> None:
    """Apply the configuration, as it is now, to the running relay.

    Exits 0 when it is in force; 1 when the relay keeps the old one, and says why: an error in the new one, an address in use, or a
    change that needs a restart; 69 when no relay is running; 75 when it does not answer; 78 when errors in the configuration keep
    this command from finding the relay.
    """
    from sesrelay.app.operator import DaemonUnreachable, reload_daemon
    from sesrelay.config.loading import load
    from sesrelay.config.problem import ConfigError
    from sesrelay.control.question import ControlError, NoAnswer

    problems, code = None, EX_UNAVAILABLE
    try:
        problems = _asked(config)
        if problems is None:
            problems = asyncio.run(reload_daemon(load(config).config))
        unanswered = "no relay is running"
    except ConfigError as error:
        _signal()  # it finds the same, and its log and metrics tell
        exit_with_problems(error)
    except NoAnswer as error:
        unanswered, code = str(error), EX_TEMPFAIL
    except (DaemonUnreachable, ControlError, OSError) as error:
        unanswered = str(error)
    if problems is None:
        if not _signal():
            fail(unanswered, code)
        click.echo(f"sesrelay: {unanswered} at the control socket; SIGHUP was sent: see the log for the result", err=True)
        return
    for problem in problems:
        click.echo(f"sesrelay: the running relay keeps its old configuration: {problem}", err=True)
    if problems:
        raise SystemExit(EX_FAILED)
    click.echo("the running relay now uses this configuration")


def _asked(config: Path) -> list[str] | None:
    """Have the daemon that a glance finds reload; return why it would not. None: no such answer.

    It does not matter what is wrong with the rest of the file, or what of it this user cannot read. Raises: NoAnswer
    """
    from sesrelay.cli.glance import daemon_of
    from sesrelay.control.question import ControlError, NoAnswer, ask

    seen = daemon_of(config)
    try:
        return None if seen is None else list(ask(seen.control, seen.queue, "reload")["problems"])
    except NoAnswer:
        raise
    except (ControlError, OSError):
        return None


def _signal() -> bool:
    """Send SIGHUP to the daemon that systemd names, as it does in ExecReload=; tell whether there is one.

    Source: systemd.exec(5), $MAINPID.
    """
    pid = os.environ.get("MAINPID", "")
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), signal.SIGHUP)
    except OSError:
        return False
    return True


def end_interrupted(config: Path, *folders: Path) -> None:
    """Let files that were to change together agree, where the verb that changed them was killed between two, and tell of them.

    They are beside the configuration, with the sites, or in `folders`. Raises: OSError
    """
    from sesrelay.config.sites import FOLDER
    from sesrelay.setup.files import finish_interrupted

    place = config.resolve().parent
    for folder in dict.fromkeys((place, place / FOLDER, *(each.resolve() for each in folders))):
        for file in finish_interrupted(folder):
            click.echo(f"{file}: written now, to complete an earlier command that was interrupted", err=True)


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
        fail(reason(error, config.parent))


def take_up(loaded: Loaded, *, quiet: bool = False) -> int:
    """Have a running relay reload, say what came of it (`quiet`: only trouble), and return the exit code."""
    from sesrelay.app.operator import DaemonUnreachable, reload_daemon
    from sesrelay.control.question import ControlError, NoAnswer

    try:
        problems = asyncio.run(reload_daemon(loaded.config))
    except NoAnswer as error:
        told = f"the change is saved, but {error}; when it answers: sesrelay reload"
        click.echo(as_run(f"sesrelay: {told}"), err=True)
        return EX_TEMPFAIL
    except (DaemonUnreachable, ControlError, OSError) as error:
        click.echo(f"sesrelay: the change is saved, but the running relay could not be reloaded: {error}", err=True)
        return EX_FAILED
    for problem in problems or ():
        click.echo(f"sesrelay: the running relay keeps its old configuration: {problem}", err=True)
    if problems:
        return EX_FAILED
    if not quiet:
        running = problems is not None
        click.echo(
            "the running relay now uses this configuration" if running else "no relay is running; it takes effect at the next start"
        )
    return EX_OK
