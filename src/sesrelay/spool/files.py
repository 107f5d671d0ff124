"""Content too large for the database: a file a message in `bodies/`, named by queue id.

Invariant: a file is synced, and its folder too, before the message that needs it is committed; it is removed after
the commit that ends the message. What is left over by a crash in between is an orphan, swept at start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from sesrelay.mail import queue_id

THRESHOLD = 256 * 1024  # octets; above, a slow reader of one BLOB would hold up checkpoints, a slow writer everyone


class Bodies:
    """Runs on: any thread; every call blocks on the disk. Raises: OSError"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o750)
            sync_folder(self.folder.parent)

    def write(self, message: str, content: bytes) -> None:
        """Store content. Durability: on stable storage on return; a write that fails leaves no file."""
        path = self.folder / message
        # O_EXCL: a repeated queue id must not touch the content of the message that has it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            try:
                self._give_to_owner(descriptor)
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self.folder)
        except BaseException:
            self.remove(message)
            raise

    def _give_to_owner(self, descriptor: int) -> None:
        """Let the daemon read what root writes beside it, as SQLite does with its own files."""
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def read(self, message: str) -> bytes:
        return (self.folder / message).read_bytes()

    def remove(self, message: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / message).unlink()

    def sweep(self, wanted: Callable[[int], bool]) -> int:
        """Remove the files whose message is not `wanted` by its number; return how many. For the start only."""
        removed = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if queue_id.PATTERN.match(entry.name) and entry.is_file() and not wanted(queue_id.decode(entry.name)):
                    Path(entry.path).unlink()
                    removed += 1
        return removed


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
