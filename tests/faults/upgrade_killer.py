"""Upgrades a store of version 1 again and again, dying of SIGKILL at its 1st, 2nd, 3rd … write or sync.

`python upgrade_killer.py FOLDER`: FOLDER/old/queue.db is the store. Prints, for each death, the version that the next
life met, and at the end how many writes an upgrade has.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import apsw

from sesrelay.spool.opening import open_store


class Mortal(apsw.VFS):
    """The default VFS; the process dies at the write or sync number `last`, half of the write done."""

    def __init__(self, last: int) -> None:
        self.last, self.done = last, 0
        super().__init__("mortal", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return MortalFile(self, name, flags)


class MortalFile(apsw.VFSFile):
    def __init__(self, vfs: Mortal, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.done += 1
        if self._vfs.done == self._vfs.last:
            super().xWrite(data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._vfs.done += 1
        if self._vfs.done == self._vfs.last:
            os.kill(os.getpid(), signal.SIGKILL)
        super().xSync(flags)


def upgrade(state: Path, last: int) -> int | None:
    """Upgrade in a child; return how many writes it took, or None where it died first."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        vfs = Mortal(last)
        open_store(state / "queue.db", vfs="mortal").close()
        os.write(writable, b"%d" % vfs.done)
        os._exit(0)
    os.close(writable)
    told = os.read(readable, 20)
    os.close(readable)
    os.waitpid(child, 0)
    return int(told) if told else None


def main(folder: Path) -> None:
    last = 1
    while True:
        state = folder / f"life-{last}"
        shutil.copytree(folder / "old", state)
        writes = upgrade(state, last)
        if writes is not None:
            print("writes", writes, flush=True)
            return
        db = apsw.Connection(str(state / "queue.db"))
        print("died", last, db.pragma("user_version"), flush=True)
        db.close()
        last = last + 1 if last < 12 else last * 5 // 4


if __name__ == "__main__":
    main(Path(sys.argv[1]))
