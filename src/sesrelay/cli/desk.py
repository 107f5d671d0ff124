"""How verbs reach the operators' desk, and what a person is told where they cannot."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sesrelay.cli.options import DEFAULT_CONFIG, EX_TEMPFAIL, load_or_exit
from sesrelay.cli.remedies import as_run, fail

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded
    from sesrelay.seams import Desk


def ask_daemon(config: Path, verb: str) -> Any:
    """Return what a daemon that a glance at the configuration finds answers; None where there is none, or it will not.

    Quicker by half than `with_desk`, which then finds out why.
    """
    from sesrelay.cli.glance import daemon_of
    from sesrelay.control.question import ControlError, NoAnswer, ask

    seen = daemon_of(config)
    try:
        return None if seen is None else ask(seen.control, seen.queue, verb)
    except NoAnswer as error:
        fail(str(error), EX_TEMPFAIL)
    except (ControlError, OSError):
        return None


def with_desk(
    config: Path,
    work: Callable[[Desk], Awaitable[int]],
    *,
    importing: bool = False,
    salvage: bool = False,
    salvage_in: Path | None = None,
) -> NoReturn:
    """Run `work` at the desk and leave with the exit code that it returns; 75 where the desk cannot be reached.

    `importing`: `work` may take messages in. `salvage_in`: where a desk over what is left of a damaged store may be put
    up; with `salvage` it is, also where the store can be opened.
    """
    import asyncio

    from sesrelay.control.client import ControlError
    from sesrelay.seams import SpoolError

    try:
        code = None if salvage else asyncio.run(_at_the_daemon(config, work))
        if code is None:
            code = _at_any_desk(config, work, importing, salvage, salvage_in)
    except (ControlError, SpoolError) as error:
        fail(str(error), EX_TEMPFAIL)
    sys.exit(code)


async def _at_the_daemon(config: Path, work: Callable[[Desk], Awaitable[int]]) -> int | None:
    """Run `work` at the desk of a daemon that a glance at the configuration finds; None where it finds none.

    Reading the whole configuration takes longer than most answers.
    """
    from sesrelay.cli.glance import daemon_of
    from sesrelay.control.client import RemoteDesk
    from sesrelay.control.question import OtherQueue

    seen = daemon_of(config)
    if seen is None:
        return None
    try:
        desk = await RemoteDesk.connect(seen.control, seen.queue)
    except (OSError, OtherQueue):
        return None
    async with desk:
        return await work(desk)


def _at_any_desk(
    config: Path, work: Callable[[Desk], Awaitable[int]], importing: bool, salvage: bool, salvage_in: Path | None
) -> int:
    """Run `work` at whichever desk there is, by the whole configuration."""
    import asyncio

    from sesrelay.app.operator import DaemonUnreachable, open_desk, salvaged_desk
    from sesrelay.spool.errors import StoreDamaged

    async def run() -> int:
        if not salvage:
            try:
                async with open_desk(loaded.config, _complain, importing=loaded if importing else None) as desk:
                    if desk.missing is not None:
                        _complain(desk.missing + _looked_at(config, loaded), None)
                    return await work(desk)
            except StoreDamaged as damaged:
                if salvage_in is None:
                    raise
                _complain(str(damaged), None)
        assert salvage_in is not None
        async with salvaged_desk(loaded.config, salvage_in, _complain) as desk:
            return await work(desk)

    loaded = load_or_exit(config)
    try:
        return asyncio.run(run())
    except DaemonUnreachable as error:
        fail(str(error), EX_TEMPFAIL)


def _looked_at(config: Path, loaded: Loaded) -> str:
    """Return by which configuration there is no queue, where another one may be meant."""
    if config != DEFAULT_CONFIG and loaded.config.state_dir.is_dir():
        return ""
    return f" (with {config}; use --config FILE for another configuration)"


def _complain(what: str, error: BaseException | None) -> None:
    click.echo(as_run(f"sesrelay: {what}" + (f": {error}" if error else "")), err=True)
