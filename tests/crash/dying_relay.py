"""`sesrelay run` that dies of SIGKILL at a named point: `python dying_relay.py POINT CONFIG`.

The points are put around the real rooms from outside; the relay itself has no hook for them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sesrelay.cli import main
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.spool.writer import process
from sesrelay.transport.folder import FolderTransport
from sesrelay.transport.ses.transport import SesTransport
from sesrelay.transport.smtp.transport import SmtpTransport


def die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def before(owner: type, name: str) -> None:
    setattr(owner, name, die)


def after(owner: Any, name: str) -> None:
    real: Callable[..., Any] = getattr(owner, name)

    async def and_die(*args: Any, **kwargs: Any) -> Any:
        await real(*args, **kwargs)
        die()

    setattr(owner, name, and_die)


def inside_settle(nth: int = 1) -> None:
    """Die in the writer, with the rows of the n-th C written and not committed."""
    process.COMMAND = (sys.executable, str(Path(__file__).with_name("dying_writer.py")), str(nth))


POINTS: dict[str, Callable[[], object]] = {
    "before_A": lambda: before(SqliteSpool, "accept"),
    "after_A": lambda: after(SqliteSpool, "accept"),
    "before_B": lambda: before(SqliteSpool, "open_attempt"),
    "after_B": lambda: after(SqliteSpool, "open_attempt"),
    "before_sending": lambda: [before(way, "deliver") for way in (SesTransport, SmtpTransport)],
    "after_sending": lambda: [after(way, "deliver") for way in (SesTransport, SmtpTransport)],
    "inside_C": inside_settle,
    "inside_second_C": lambda: inside_settle(2),
    "inside_third_C": lambda: inside_settle(3),
    "after_folder": lambda: after(FolderTransport, "deliver"),
    "after_C": lambda: after(SqliteSpool, "settle"),
    "nowhere": lambda: None,
}

if __name__ == "__main__":
    point, config = sys.argv[1:]
    POINTS[point]()
    sys.exit(main(["run", "--config", config]))
