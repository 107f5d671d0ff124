"""How verbs reach the operators' desk, and what a person is told where they cannot."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from sesrelay.cli.options import EX_TEMPFAIL, load_or_exit
from sesrelay.seams import Desk


def with_desk(config: Path, work: Callable[[Desk], Awaitable[int]]) -> None:
    """Run `work` at the desk and leave with the exit code that it returns; 75 where the desk cannot be reached."""
    from sesrelay.app.operator import DaemonUnreachable, open_desk
    from sesrelay.control.client import ControlError
    from sesrelay.seams import SpoolError

    async def run() -> int:
        async with open_desk(loaded.config, _complain) as desk:
            return await work(desk)

    loaded = load_or_exit(config)
    try:
        code = asyncio.run(run())
    except (DaemonUnreachable, ControlError, SpoolError) as error:
        click.echo(f"sesrelay: {error}", err=True)
        code = EX_TEMPFAIL
    sys.exit(code)


def _complain(what: str, error: BaseException | None) -> None:
    click.echo(f"sesrelay: {what}" + (f": {error}" if error else ""), err=True)
