"""How verbs reach the operators' desk, and what a person is told where they cannot."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from sesrelay.cli.options import EX_FAILED, EX_TEMPFAIL, load_or_exit, reader_left
from sesrelay.seams import Desk


def with_desk(
    config: Path,
    work: Callable[[Desk], Awaitable[int]],
    *,
    importing: bool = False,
    salvage: bool = False,
    salvage_in: Path | None = None,
) -> None:
    """Run `work` at the desk and leave with the exit code that it returns; 75 where the desk cannot be reached.

    `importing`: `work` may take messages in. `salvage_in`: where a desk over what is left of a damaged store may be put
    up; with `salvage` it is, also where the store can be opened.
    """
    from sesrelay.app.operator import DaemonUnreachable, open_desk, salvaged_desk
    from sesrelay.control.client import ControlError
    from sesrelay.seams import SpoolError
    from sesrelay.spool.errors import StoreDamaged

    async def run() -> int:
        if not salvage:
            try:
                async with open_desk(loaded.config, _complain, importing=loaded if importing else None) as desk:
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
        code = asyncio.run(run())
    except BrokenPipeError:
        code = reader_left()
    except (DaemonUnreachable, ControlError, SpoolError) as error:
        click.echo(f"sesrelay: {error}", err=True)
        code = EX_TEMPFAIL
    except OSError as error:
        click.echo(f"sesrelay: {error}", err=True)
        code = EX_FAILED
    sys.exit(code)


def _complain(what: str, error: BaseException | None) -> None:
    click.echo(f"sesrelay: {what}" + (f": {error}" if error else ""), err=True)
