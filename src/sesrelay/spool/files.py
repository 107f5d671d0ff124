"""Content too large for the database: a file a message in `bodies/`, named by queue id.

Invariant: a file is synced, and its folder too, before the message that needs it is committed; it is removed after
the commit that ends the message. What is left over by a crash in between is an orphan, swept at start.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from sesrelay.mail import headers, queue_id
from sesrelay.mail.filed import PIECE, Filed, plain
from sesrelay.seams import NoSpace, SpoolError
from sesrelay.spool.owner import give_to_owner

THRESHOLD = 256 * 1024  # octets; above, a slow reader of one BLOB would hold up checkpoints, a slow writer everyone


Trouble = Callable[[str, BaseException | None], None]


class OpenFile:
    """A file of this folder, there for as long as anybody holds it, whatever becomes of its name. Implements `filed.Scratch`.

    Runs on: any thread; every call blocks on the disk. Raises: SpoolError
    """

    def __init__(self, descriptor: int, min_free: int = 0) -> None:
        self._descriptor = descriptor
        self._min_free = min_free
        self.size = os.fstat(descriptor).st_size

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read_at(self, at: int, octets: int) -> bytes:
        try:
            data = os.pread(self._descriptor, octets, at)
            while len(data) < octets:
                more = os.pread(self._descriptor, octets - len(data), at + len(data))
                if not more:
                    raise SpoolError(f"the file of a message has {at + len(data)} octets instead of {at + octets}")
                data += more
        except OSError as error:
            raise SpoolError(f"the file of a message cannot be read: {error}") from error
        return data

    def append(self, data: bytes) -> None:
        try:
            disk = os.fstatvfs(self._descriptor)
            if disk.f_bavail * disk.f_frsize - len(data) < self._min_free:
                raise NoSpace(f"less than {self._min_free} bytes would stay free")
            _write(self._descriptor, data)
        except OSError as error:
            raise SpoolError(f"incoming content cannot be written: {error}") from error
        self.size += len(data)


class Bodies:
    """Runs on: any thread; every call blocks on the disk. Raises: OSError"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o750)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                give_to_owner(self.folder.parent, descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self.folder.parent)

    def scratch(self, min_free: int = 0) -> OpenFile:
        """Return an empty file without a name, which goes with the process; what would leave less than `min_free` octets
        on the disk is not written. Raises: SpoolError
        """
        try:
            with tempfile.TemporaryFile(dir=self.folder, buffering=0) as made:
                return OpenFile(os.dup(made.fileno()), min_free)
        except OSError as error:
            raise SpoolError(f"no file can be created for incoming content: {error}") from error

    def write(self, message: str, content: bytes | Filed) -> None:
        """Store content. Durability: on stable storage on return; a write that fails leaves no file."""
        path = self.folder / message
        # O_EXCL: a repeated queue id must not touch the content of the message that has it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            try:
                give_to_owner(self.folder, descriptor)
                for piece in content.pieces() if isinstance(content, Filed) else (content,):
                    _write(descriptor, piece)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self.folder)
        except BaseException:
            self.remove(message)
            raise

    def read(self, message: str) -> bytes:
        return (self.folder / message).read_bytes()

    def filed(self, message: str) -> Filed | None:
        """Return content as it stands in its file, where it is `plain`; None where it is not, or whatever else is in the way."""
        try:
            file = OpenFile(os.open(self.folder / message, os.O_RDONLY | os.O_CLOEXEC))
            start = file.read_at(0, min(PIECE, file.size))
            end = headers.head_length(start)
            if not start.startswith(b"\r\n", end):
                return None
            found = Filed(start[: end + 2], file, end + 2, file.size - end - 2)
            return found if plain(found) else None
        except (OSError, SpoolError):
            return None  # whoever reads it whole is told what is in the way

    def remove(self, message: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / message).unlink()

    def drop(self, message: str, on_trouble: Trouble) -> None:
        """Remove the file of a message that has ended; what cannot be removed is told of."""
        try:
            self.remove(message)
        except OSError as error:
            on_trouble("the file of a finished message could not be removed", error)

    def sweep(self, wanted: Callable[[int], bool]) -> int:
        """Remove the files whose message is not `wanted` by its number; return how many. For the start only."""
        removed = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if queue_id.PATTERN.match(entry.name) and entry.is_file() and not wanted(queue_id.decode(entry.name)):
                    Path(entry.path).unlink()
                    removed += 1
        return removed


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
