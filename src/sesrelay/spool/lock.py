"""The lock on the state directory: one holder, the daemon or a verb that works without one.

Invariant: the lock dies with its process (flock), so there is never a stale one to remove; the pid in the file is
for people.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from sesrelay.spool.errors import LockHeld, StoreRefused
from sesrelay.spool.owner import give_to_owner

LOOK = 0.02  # seconds
LOOKS = 500  # at a lock whose daemon is dead; its writer ends with what it is at
LOOKS_UNNAMED = 50  # at one that does not say whose it is: the disk was full


class StateLock:
    """An exclusive hold on a state directory, until `release`."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor: int | None = descriptor
        self.path = path

    @classmethod
    def acquire(cls, state_dir: Path) -> StateLock:
        """Take the lock: at once, or as soon as the writer of a daemon that died has ended.

        Raises: LockHeld naming the holder's pid, StoreRefused where the directory is unusable.
        """
        path = state_dir / "lock"
        try:
            state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            # O_NOFOLLOW: root takes it too, and gives what it has opened to the owner of the folder, who may have put a link there.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            give_to_owner(state_dir, descriptor)
        except OSError as error:
            raise StoreRefused(f"{path}: {error.strerror}; state_dir must be a directory that this user may write to") from error
        looks = 0
        while not _locked(descriptor):
            pid, looks = _pid(descriptor), looks + 1
            if looks > (LOOKS_UNNAMED if pid is None else LOOKS) or (pid is not None and _lives(pid)):
                os.close(descriptor)
                raise LockHeld(str(path), pid)
            time.sleep(LOOK)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError:
            # A full disk must not keep the queue from being drained: the lock holds without its pid.
            pass
        return cls(descriptor, path)

    def fileno(self) -> int:
        """Return the descriptor that holds it: whoever else has it, holds it too."""
        assert self._descriptor is not None
        return self._descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 20, 0))
    except (OSError, ValueError):
        return None
