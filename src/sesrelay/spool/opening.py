"""Opening the SQLite file: created whole or not at all, checked before it is trusted, refused with the remedy.

Invariant: a file that is there is never replaced, emptied or repaired.
Invariant: journal_mode WAL and synchronous FULL are read back: WAL can silently be denied, and NORMAL loses
acknowledged mail at a power loss.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from sesrelay.spool.errors import StoreDamaged, StoreRefused
from sesrelay.spool.files import sync_folder
from sesrelay.spool.migrations import migrate
from sesrelay.spool.owner import give_to_owner
from sesrelay.spool.pages import log_is_whole

SQLITE_MIN = 3_051_003  # 3.51.3; before it, two connections that write and checkpoint at once can lose commits
BUSY_TIMEOUT = 2_000  # milliseconds
CACHE_WRITER = -8 * 1024  # KiB
CACHE_READER = -2 * 1024
STATEMENTS = 300  # that stay prepared: the writer's have a form for each number of rows
WAL_LEFT = 32 * 1024 * 1024  # octets of the log file that stay when it starts anew
FILE_MODE = 0o640
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EINVAL)
"""A folder that is not for us to read, or of a file system that syncs none (squashfs, autofs): nothing that we have made."""
_MAGIC = b"SQLite format 3\0"
_RESTORE = (
    "`sesrelay queue export FOLDER` saves the readable part of it; then restore it from a backup, or move it away together with "
    "its -wal and -shm files to start with an empty queue"
)


def open_store(path: Path, *, vfs: str | None = None) -> apsw.Connection:
    """Open the queue at `path` for writing, new where nothing is. Raises: StoreRefused"""
    if apsw.SQLITE_VERSION_NUMBER < SQLITE_MIN:
        raise StoreRefused(f"SQLite {apsw.sqlite_lib_version()} can lose commits; install apsw 3.54 or later")
    try:
        if not path.exists():
            create(path)
        _look_at(path)
        return _guarded(path, lambda: _open_checked(path, vfs))
    except OSError as error:
        raise StoreRefused(f"{path}: {error.strerror}; state_dir must be a directory that this user may write to") from error


def connect(path: Path, *, write: bool, vfs: str | None = None) -> apsw.Connection:
    """Open one connection to a store that exists. Raises: apsw.Error, StoreRefused"""
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    db = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_NOMUTEX, vfs=vfs, statementcachesize=STATEMENTS)
    try:
        db.set_busy_timeout(BUSY_TIMEOUT)
        db.pragma("cache_size", CACHE_WRITER if write else CACHE_READER)
        if not write:
            db.pragma("query_only", True)
            return db
        mode = db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "FULL")
        if mode != "wal" or db.pragma("synchronous") != 2:
            raise StoreRefused(
                f"{path}: the file system does not support a write-ahead log (journal_mode {mode}); put state_dir on a local disk"
            )
        db.wal_autocheckpoint(0)
        db.pragma("journal_size_limit", WAL_LEFT)
    except BaseException:
        db.close(True)
        raise
    return db


def create(path: Path) -> None:
    """Make a new store under another name and rename it: a crash half-way leaves nothing that looks like a queue."""
    wal = Path(f"{path}-wal")
    if wal.exists() and wal.stat().st_size:
        raise StoreDamaged(f"{path} is missing, but its log {wal} is there and may hold accepted mail; {_RESTORE}")
    fresh = Path(f"{path}.new")
    for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    made = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    give_to_owner(path.parent, made)
    os.close(made)
    try:
        db = apsw.Connection(str(fresh), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.pragma("auto_vacuum", 2)  # INCREMENTAL; only possible before the first table
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", "FULL")
            migrate(db, str(path))
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            db.close(True)
    except apsw.Error as error:
        raise StoreRefused(f"{path} cannot be created: {error}") from error
    for above in path.parent.absolute().parents:  # the folder may be as new as what is in it, and so may these
        try:
            sync_folder(above)
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
    fresh.rename(path)
    sync_folder(path.parent)


def _look_at(path: Path) -> None:
    """Look at the file before SQLite does: it would take an empty one for a new database."""
    size = path.stat().st_size
    if not size:
        raise StoreDamaged(f"{path} is empty (0 bytes), although sesrelay never leaves it empty; {_RESTORE}")
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(_MAGIC) or len(head) < 100:
        raise StoreDamaged(f"{path} is not an SQLite database; {_RESTORE}")
    page = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    page = 65536 if page == 1 else page
    wal = Path(f"{path}-wal")
    # With a log beside it the file may rightly be shorter: a checkpoint writes page 1 first.
    if size < page * pages and not (wal.exists() and wal.stat().st_size):
        raise StoreDamaged(f"{path} is truncated: it has {size} bytes, but its header says {page * pages}; {_RESTORE}")


def _open_checked(path: Path, vfs: str | None) -> apsw.Connection:
    db = connect(path, write=True, vfs=vfs)
    try:
        _check_log(db, path)
        migrate(db, str(path))  # which may sort a whole queue for a new index: on disk
        db.pragma("temp_store", "memory")
        if db.pragma("auto_vacuum") != 2:
            raise StoreRefused(f"{path} was not made by sesrelay (auto_vacuum is not incremental); {_RESTORE}")
        db.execute("BEGIN IMMEDIATE")
        # A row from either end of each table: finds what is grossly damaged without reading a million rows.
        for table, order in (("message", "id"), ("delivery", "message"), ("event", "message"), ("content", "message")):
            db.execute(f"SELECT * FROM {table} ORDER BY {order} LIMIT 1").fetchall()
            db.execute(f"SELECT * FROM {table} ORDER BY {order} DESC LIMIT 1").fetchall()
        db.execute("SELECT count(*) FROM total").fetchall()
        db.execute("ROLLBACK")
    except BaseException:
        db.close(True)
        raise
    return db


def _check_log(db: apsw.Connection, path: Path) -> None:
    """See that SQLite counts all of the log: behind what is damaged it sees no more, takes it for the end, and writes over it.

    SQLite is asked, and its -shm not looked into: whoever closes that file takes from SQLite all locks that it has on it, and
    the next connection would begin it anew beneath this one (sqlite.org/howtocorrupt.html §2.2). Raises: StoreDamaged
    """
    log = Path(f"{path}-wal")
    counted, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    if log.exists() and not log_is_whole(log, counted):
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)  # which would remove it
        raise StoreDamaged(f"{path} is damaged: there is mail after a damaged part of its log {log}; {_RESTORE}")


def _guarded(path: Path, do: Callable[[], apsw.Connection]) -> apsw.Connection:
    try:
        return do()
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreRefused(f"{path} is locked by another program (`fuser {path}` names it); stop it and start again") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        raise StoreDamaged(f"{path} is damaged ({error}); {_RESTORE}") from error
    except apsw.Error as error:
        raise StoreRefused(f"{path} cannot be opened: {error}; check the disk and the owner of the file") from error
