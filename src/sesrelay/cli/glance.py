"""Where the daemon of a configuration listens, from a glance at it, for verbs that would rather not read it all.

Invariant: anything out of the ordinary is left to the whole reading; what is told here is what that would say.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

RUN_DIR = Path("/run/sesrelay")
STATE_DIR = Path("/var/lib/sesrelay")


class Seen(NamedTuple):
    """`queue` is the real path of state_dir."""

    control: Path
    queue: str


_COMMENT = re.compile(r"(?:^|[ \t])#.*$", re.MULTILINE)
_NO_PATHS = frozenset(("null", "true", "false", "yes", "no", "on", "off"))


def daemon_of(config: Path) -> Seen | None:
    """Return the socket and the queue where the file names plain paths once, or none and /run/sesrelay is there; else None."""
    try:
        text = _COMMENT.sub("", config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    folder = config.absolute().parent
    control = _named(text, "control", folder, RUN_DIR / "control.sock" if RUN_DIR.is_dir() else None)
    state_dir = _named(text, "state_dir", folder, STATE_DIR)
    return Seen(control, os.path.realpath(state_dir)) if control is not None and state_dir is not None else None


def _named(text: str, key: str, folder: Path, default: Path | None) -> Path | None:
    named = text.count(key)
    if named == 0:
        return default
    found = re.findall(rf"^{key}:[ \t]+([A-Za-z/.][\w./+-]*)[ \t]*$", text, re.MULTILINE)
    # A path may have the word too; any other place may be one that means something else.
    plain = len(found) == 1 and named == 1 + found[0].count(key) and found[0].lower() not in _NO_PATHS
    return folder / found[0] if plain else None
