"""Files that appear as a whole or not at all, and that others cannot read.

Invariant: at no moment has a file of this module a mode wider than its last one, or half its content.
Invariant: of several files all are new or all are old after an error; a process that is killed between two of them leaves a
list of what is to do, by which `finish_interrupted` ends it. Who has the list open and locked is at work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
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

    The folder of the last one has the list meanwhile; what a killed process left there is ended first. Raises: OSError
    """
    if len(files) == 1:
        _write(files, None)
        return
    with _listing(files[-1].path.resolve().parent) as pending:
        _finish(pending)
        _write(files, pending)


def write_new(one: NewFile) -> None:
    """Write a file durably where there is none yet. Raises: FileExistsError, OSError"""
    temporary = _beside(one.path, one)
    try:
        os.link(temporary, one.path)  # unlike a rename, it replaces nothing
        sync(one.path.parent)
    finally:
        temporary.unlink()


def finish_interrupted(folder: Path) -> list[Path]:
    """Give the files their names that a killed process had ready; return them. What was changed since stays. Raises: OSError"""
    if not (folder / PENDING).exists():
        return []
    with _listing(folder) as pending:
        return _finish(pending)


def sync(folder: Path) -> None:
    """Put the names in `folder` on the disk. Raises: OSError"""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(files: Sequence[NewFile], pending: int | None) -> None:
    """Write files as a whole, or none of them; what is about to be done goes to the list `pending` first."""
    ready: list[tuple[Path, Path]] = []
    replaced: list[tuple[Path | None, Path]] = []
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
            sync(folder)
    except BaseException:
        for old, target in reversed(replaced):
            if old is not None:
                old.replace(target)
            elif not ready or target != ready[0][1]:
                target.unlink(missing_ok=True)
        raise
    finally:
        for path in [*(temporary for temporary, _ in ready), *(old for old, _ in replaced if old is not None)]:
            path.unlink(missing_ok=True)


def _finish(pending: int) -> list[Path]:
    """Do what the list says and nobody has done; return the files that got their names."""
    done: list[Path] = []
    try:
        steps = json.loads(os.pread(pending, os.fstat(pending).st_size, 0))
    except ValueError:  # nothing was done yet
        return done
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
    for each in {target.parent for target in done}:
        sync(each)
    return done


@contextlib.contextmanager
def _listing(folder: Path) -> Iterator[int]:
    """Hold the list of `folder`, alone, and remove it in the end."""
    pending = folder / PENDING
    while True:
        handle = os.open(pending, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)  # another one's, who has ended
    try:
        yield handle
    finally:
        pending.unlink()
        os.close(handle)


def _note(pending: int, ready: Sequence[tuple[Path, Path]]) -> None:
    """Put on the disk what is about to be done."""
    steps = [[str(temporary), str(target), _identity(target)] for temporary, target in ready]
    os.ftruncate(pending, 0)
    os.pwrite(pending, json.dumps(steps).encode(), 0)
    os.fsync(pending)
    for folder in {temporary.parent for temporary, _ in ready}:
        sync(folder)


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
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # made with mode 0600
    except OSError as error:
        error.filename = str(target.parent)  # it names the one that could not be made, which nobody has heard of
        raise
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
