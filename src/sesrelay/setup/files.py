"""Files that appear as a whole or not at all, and that others cannot read.

Invariant: at no moment has a file of this module a mode wider than its last one, or half its content.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MODE = 0o640


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be, of mode 0640 and owned as `like` is, so that the daemon can read one as the other.

    Where `like` is the very file that is replaced, its mode stays too.
    """

    path: Path
    text: str = field(repr=False)  # it may be a secret
    like: Path


def write_files(files: Sequence[NewFile]) -> None:
    """Write all of these files durably: each is on the disk under another name before the first is renamed. Raises: OSError"""
    ready: list[tuple[Path, Path]] = []
    try:
        for one in files:
            target = one.path.resolve()  # what a symbolic link leads to is replaced, not the link
            ready.append((_beside(target, one), target))
        while ready:
            temporary, target = ready[0]
            temporary.replace(target)
            ready.pop(0)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)
    for folder in {one.path.resolve().parent for one in files}:
        _sync(folder)


def _beside(target: Path, one: NewFile) -> Path:
    """Return a file with the text in the folder of `target`, synced."""
    like = one.like.stat() if one.like.exists() else None
    mode = stat.S_IMODE(like.st_mode) if like and one.like.resolve() == target else MODE
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(one.text)
            stream.flush()
            if like and os.geteuid() == 0:  # only root can
                os.fchown(handle, like.st_uid, like.st_gid)
            os.fchmod(handle, mode)
            os.fsync(handle)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
