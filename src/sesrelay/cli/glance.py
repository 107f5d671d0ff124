"""Where the daemon's control socket is, from a glance at the configuration, for verbs that would rather not read it all.

Invariant: anything out of the ordinary is left to the whole reading; what is told here is what that would say.
"""

from __future__ import annotations

import re
from pathlib import Path

RUN_DIR = Path("/run/sesrelay")
_KEY = re.compile(r"^control:[ \t]+(/[\w./+-]+)[ \t]*(?:#.*)?$", re.MULTILINE)


def control_socket(config: Path) -> Path | None:
    """Return the socket where the file names a plain absolute path once, or nothing and /run/sesrelay is there; else None."""
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    named = text.count("control")
    if named == 0:
        return RUN_DIR / "control.sock" if RUN_DIR.is_dir() else None
    found = _KEY.findall(text)
    # The socket's own name has the word too; any other place may be one that means something else.
    return Path(found[0]) if len(found) == 1 and named == 1 + found[0].count("control") else None
