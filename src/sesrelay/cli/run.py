"""`sesrelay run`: the daemon, in the foreground."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path

import click

from sesrelay.cli.options import EX_TEMPFAIL, config_option, load_or_exit
from sesrelay.cli.remedies import fail


@click.command()
@config_option
def command(config: Path) -> None:
    """Accept and deliver mail, until SIGTERM. SIGHUP reloads the configuration."""
    gc.disable()  # start-up makes much and drops little: a fifth of its time was collecting in vain
    hangups: list[int] = []  # the default of SIGHUP is the end, which systemd takes for a clean one
    signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
    loaded = load_or_exit(config)

    from sesrelay.app.daemon import Daemon
    from sesrelay.app.loop import new_event_loop
    from sesrelay.listener.sockets import ListenError
    from sesrelay.seams import SpoolError
    from sesrelay.spool.errors import LockHeld

    async def run() -> None:
        daemon = Daemon(loaded, config)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, ended.set)  # from before anybody is told of readiness, and can act on it
        loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon)
        if hangups:
            daemon.reload_soon()

        def before_ready() -> None:
            loop.add_signal_handler(signal.SIGINT, ended.set)
            gc.collect()
            gc.set_threshold(10_000, 20, 50)  # a message makes hundreds of objects that die with it; few are ever in a circle
            gc.freeze()  # what start-up made stays; later collections need not look at it
            gc.enable()

        await daemon.start(before_ready)
        await ended.wait()
        await daemon.stop()

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run())
    except LockHeld as held:
        fail(str(held), EX_TEMPFAIL)
    except (SpoolError, ListenError, OSError, ValueError) as error:
        fail(f"cannot start: {error}")
