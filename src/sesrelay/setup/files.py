"""Files that appear as a whole or not at all, and that others cannot read.

Invariant: at no moment has a file of this module a mode wider than its last one, or half its content.
Invariant: of several files all are new or all are old after an error; a process that is killed between two of them leaves a
list of what is to do, by which `finish_interrupted` ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MODE = 0o640
PENDING = ".sesrelay.pending"
FORGOTTEN = 3600.0  # seconds after which a file that was never given its name is nobody's any more


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be, of mode 0640 and owned as `like` is, so that the daemon can read one as the other.

    Where `like` is the very file that is replaced, its mode stays too.
    """

    path: Path
    text: str = field(repr=False)  # it may be a secret
    like: Path


def write_files(files: Sequence[NewFile]) -> None:
    """Write all of these files durably, or none: each is on the disk under another name before the first is renamed.

    The folder of the last one has the list meanwhile. Raises: OSError
    """
    ready: list[tuple[Path, Path]] = []
    replaced: list[tuple[Path | None, Path]] = []
    pending = files[-1].path.resolve().parent / PENDING if len(files) > 1 else None
    try:
        for one in files:
            target = one.path.resolve()  # what a symbolic link leads to is replaced, not the link
            ready.append((_beside(target, one), target))
            _sweep(target, ready[-1][0].stat().st_mtime - FORGOTTEN)
        if pending is not None:
            _note(pending, ready)
        while ready:
            temporary, target = ready[0]
            if pending is not None:
                replaced.append((_kept(target, temporary), target))
            temporary.replace(target)
            ready.pop(0)
        for folder in {one.path.resolve().parent for one in files}:
            _sync(folder)
    except BaseException:
        for old, target in reversed(replaced):
            if old is not None:
                old.replace(target)
            elif not ready or target != ready[0][1]:
                target.unlink(missing_ok=True)
        raise
    finally:
        leftovers = [temporary for temporary, _ in ready] + [old for old, _ in replaced if old is not None]
        for path in [*leftovers, *([pending] if pending is not None else [])]:
            path.unlink(missing_ok=True)


def finish_interrupted(folder: Path) -> list[Path]:
    """Give the files their names that a killed process had ready; return them. What was changed since stays. Raises: OSError"""
    pending, done = folder / PENDING, list[Path]()
    try:
        steps = json.loads(pending.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    for name, place, identity in steps:
        temporary, target = Path(name), Path(place)
        _old(temporary).unlink(missing_ok=True)
        if not temporary.exists():
            continue
        if _identity(target) == identity:
            temporary.replace(target)
            done.append(target)
        else:
            temporary.unlink()
    pending.unlink()
    for each in {folder, *(target.parent for target in done)}:
        _sync(each)
    return done


def _note(pending: Path, ready: Sequence[tuple[Path, Path]]) -> None:
    """Put on the disk what is about to be done."""
    steps = [[str(temporary), str(target), _identity(target)] for temporary, target in ready]
    handle = os.open(pending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(steps, stream)
        stream.flush()
        os.fsync(handle)
    for folder in {pending.parent, *(temporary.parent for temporary, _ in ready)}:
        _sync(folder)


def _identity(path: Path) -> list[int] | None:
    """Return what changes where a file is replaced or written to, None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_mtime_ns, found.st_size]


def _kept(target: Path, temporary: Path) -> Path | None:
    """Return another name of the file that is about to be replaced, None where there is none."""
    old = _old(temporary)
    try:
        os.link(target, old)
    except FileNotFoundError:
        return None
    return old


def _old(temporary: Path) -> Path:
    return temporary.with_name(f"{temporary.name}.old")


def _sweep(target: Path, before: float) -> None:
    """Remove what writes of this file have left that were killed long ago: `before`, in Unix seconds."""
    for path in target.parent.glob(f".{target.name}.????????*"):
        with contextlib.suppress(FileNotFoundError):  # another one's, which has its name by now
            if path.stat().st_mtime < before:
                path.unlink()


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
