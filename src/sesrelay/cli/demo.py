"""`sesrelay demo`: the whole thing with no AWS account and no configuration."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import click

from sesrelay.cli.options import EX_FAILED, EX_OK, reader_left, reason
from sesrelay.cli.remedies import fail
from sesrelay.cli.words import seconds


@click.command()
@click.option("--smtp-port", default=2525, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--http-port", default=8025, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--ses-port", default=4579, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option(
    "--timeout", default="60s", show_default=True, type=seconds, metavar="TIME", help="How long to wait for the sample to arrive."
)
@click.option("--once", is_flag=True, help="Exit when the sample has arrived.")
def command(smtp_port: int, http_port: int, ses_port: int, timeout: float, once: bool) -> None:
    """Relay mail to an embedded stand-in for Amazon SES. Point a mail program at the SMTP address, and watch the page."""
    from sesrelay.app.demo import Demo
    from sesrelay.app.loop import new_event_loop
    from sesrelay.listener.sockets import ListenError
    from sesrelay.seams import SpoolError

    def say(line: str) -> None:
        click.echo(line)
        sys.stdout.flush()
        if reader_left():
            raise click.exceptions.Exit(EX_OK)

    async def run(folder: Path) -> bool:
        until, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, until.set)
        return await Demo(folder, say, smtp_port, http_port, ses_port).run(timeout=timeout, once=once, until=until)

    try:
        with tempfile.TemporaryDirectory(prefix="sesrelay-demo-") as folder, asyncio.Runner(loop_factory=new_event_loop) as runner:
            arrived = runner.run(run(Path(folder)))
    except (ListenError, SpoolError, OSError) as error:
        other = "choose other ports with --smtp-port, --http-port and --ses-port; 0 means any free port"
        fail(f"the demo cannot start: {reason(error) if isinstance(error, OSError) else error}\n{other}")
    sys.exit(0 if arrived else EX_FAILED)
