"""What systemd's journal is told of a line besides its text."""

from __future__ import annotations

import os
from typing import IO, Any

PRIORITIES: dict[str, str] = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
"""By level: what the journal takes off a line, and files it by. Source: sd-daemon(3)."""


def reads(out: IO[Any]) -> bool:
    """Tell whether the journal is at the other end of `out`. Source: systemd.exec(5), $JOURNAL_STREAM."""
    try:
        found = os.fstat(out.fileno())
    except OSError:  # a stream in memory, too
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
