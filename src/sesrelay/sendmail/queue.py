"""mailq: runs `sesrelay queue list` in our place."""

import os
import sys

from sesrelay.sendmail.exits import EX_UNAVAILABLE, Exit

COMMAND = "sesrelay"


def show() -> int:
    """Become `sesrelay queue list`. Raises: Exit where there is none to become"""
    for folder in _folders():
        path = f"{folder}/{COMMAND}"
        if os.access(path, os.X_OK):
            os.execv(path, [COMMAND, "queue", "list"])  # noqa: S606
    raise Exit(EX_UNAVAILABLE, f"there is no {COMMAND} beside this program or on the PATH to ask for the queue")


def _folders() -> list[str]:
    """Return where to look: beside this program, beside its Python, then the PATH."""
    own = os.path.realpath(sys.argv[0]).rpartition("/")[0]
    python = sys.executable.rpartition("/")[0]
    return [folder for folder in (own, python, *os.environ.get("PATH", os.defpath).split(":")) if folder]
