"""A group of operations in one transaction, and the store kept in order between them.

A group first runs bare, and what is of one kind in it together (`bulk`); when one of its operations fails, the transaction is
rolled back and run again with a savepoint around each, so that only the failed one fails.

Invariant: a COMMIT that fails, fails the whole group; the connection is closed and opened anew before the next one.
Invariant: the log grows beyond WAL_PAGES_LOOK only while the disk has as much room again; where the disk is full all the same,
a group fails only once the log could not be written home, or has not made room enough.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

import apsw

from sesrelay.seams import SpoolError
from sesrelay.spool.bulk import TOGETHER, Open
from sesrelay.spool.claims import Claims
from sesrelay.spool.pages import PAGE
from sesrelay.spool.tally import Tally
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer.jobs import Job

WAL_PAGES = 4_000  # pages of the log at which it is checkpointed under load: 16 MB
WAL_PAGES_LOOK = 128  # from which on it is checkpointed as soon as the disk has less room than it takes already
WAL_PAGES_MAX = 32_000  # at which the writer waits for readers and starts the log anew: 128 MB
VACUUM_PAGES = 2_048  # free pages that may stay; above, and above a quarter of the file, some are given back when idle
VACUUM_STEP = 512
VACUUM_STEPS = 8  # in one quiet moment, which the first operation that comes ends
ALONG_MAX = 1024 * 1024  # octets of content that come along with one group: who waits for its answer waits for them too


class Committer:
    """Runs on: one thread or process alone. `reopen` opens the store again after a failed commit."""

    def __init__(
        self,
        db: apsw.Connection,
        *,
        reopen: Callable[[], apsw.Connection],
        on_ended: Callable[[list[int]], None],
        on_trouble: Callable[[str, BaseException | None], None],
    ) -> None:
        self.claims = Claims()
        self.tally = Tally(db)
        self._reopen = reopen
        self._on_ended = on_ended
        self._on_trouble = on_trouble
        self._wal_pages = 1  # so that the first quiet moment is used: the last life may have ended in a flood
        self._tx: Transaction | None = None
        self._adopt(db)

    @property
    def restless(self) -> bool:
        """Whether there is something to do in a quiet moment."""
        return self._wal_pages > 0

    def commit(self, group: Sequence[Job]) -> None:
        """Run and commit a group; each job has its result or its error then. Durable on return."""
        try:
            self._commit(group)
        except BaseException as error:  # a fault of ours must not end the writer, nor leave anyone waiting
            self._fail(group, error)

    def _commit(self, group: Sequence[Job], *, again: bool = False) -> None:
        try:
            tx = self._ready()
            tx.cursor.execute("BEGIN IMMEDIATE")
            try:
                _run(tx, group)
            except Exception as error:
                self._undo(tx)
                if isinstance(error, apsw.FullError):
                    raise
                if len(group) == 1 and group[0].operation is None:
                    group[0].error = error
                    self._examine(error)
                    return
                tx.cursor.execute("BEGIN IMMEDIATE")
                self._one_by_one(tx, group)
            tx.tally.flush(tx.cursor)
            tx.cursor.execute("COMMIT")
        except Exception as error:
            if isinstance(error, apsw.FullError) and not again and self._room_made():
                for job in group:
                    job.error = None
                self._commit(group, again=True)
                return
            self._on_trouble("the store could not commit", error)
            self._fail(group, error)
            return
        tx.claims.committed()
        tx.tally.committed()
        if tx.ended:
            ended, tx.ended = tx.ended, []
            self._on_ended(ended)
        self._read_along(tx, group)

    def _read_along(self, tx: Transaction, group: Sequence[Job]) -> None:
        """Add their contents to the openings that want them.

        This is not in the group's transaction, which a read that fails would take back.
        """
        wanting = [(job, job.operation) for job in group if type(job.operation) is Open and job.operation.read is not None]
        opened = [(job, operation) for job, operation in wanting if job.error is None and job.result[0]]
        if not opened:
            return
        octets = 0
        try:
            tx.cursor.execute("BEGIN")
            for job, operation in opened:
                octets += operation.read or 0
                if octets > ALONG_MAX:
                    break
                job.result = (job.result[0], operation.content(tx.cursor))
            tx.cursor.execute("COMMIT")
        except Exception as error:  # the attempts are on record all the same, and nothing of this may fail what is stored
            with contextlib.suppress(apsw.Error):
                if not tx.db.get_autocommit():
                    tx.cursor.execute("ROLLBACK")
            self._on_trouble("content could not be read when its attempt was recorded; it is read separately", error)

    def _one_by_one(self, tx: Transaction, group: Sequence[Job]) -> None:
        """Run the group with a savepoint an operation. Raises: what ended the whole transaction"""
        for job in group:
            mark, counts, ended = tx.claims.mark(), tx.tally.snapshot(), len(tx.ended)
            tx.cursor.execute("SAVEPOINT operation")
            try:
                job.result = job.run(tx)
            except Exception as error:
                if tx.db.get_autocommit() or isinstance(error, apsw.FullError):
                    raise  # SQLite has rolled back everything, as it may on an I/O error, or there is no room for any of it
                job.error = error
                self._examine(error)
                tx.cursor.execute("ROLLBACK TO operation")
                tx.claims.undo(mark)
                tx.tally.restore(counts)
                del tx.ended[ended:]
            tx.cursor.execute("RELEASE operation")

    def _undo(self, tx: Transaction) -> None:
        """Take back the open transaction, on disk and in memory."""
        if not tx.db.get_autocommit():
            tx.cursor.execute("ROLLBACK")
        tx.claims.undo()
        tx.tally.forget()
        tx.ended.clear()

    def _fail(self, group: Sequence[Job], error: BaseException) -> None:
        """Fail all of a group, and have the store opened anew."""
        for job in group:
            job.error = error
        self._drop()

    def _drop(self) -> None:
        """Have the store opened anew: after a failed write nothing of the connection is trusted."""
        tx, self._tx = self._tx, None
        self.claims.undo()
        self.tally.forget()
        if tx is not None:
            try:
                tx.db.close(True)
            except apsw.Error as closing:
                self._on_trouble("the store could not be closed", closing)

    def _room_made(self) -> bool:
        """Write the log home when the disk is full, so that it starts anew in the room that it has; tell whether that was done."""
        self._drop()
        try:
            left, done = self._ready().db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.Error, SpoolError):  # the full disk is told of; anything else is met, and told of, by the next group
            return False
        return 0 < left == done

    def _examine(self, error: BaseException) -> None:
        """Tell of what one operation met, unless it is a refusal of ours: those are the caller's to tell."""
        if not isinstance(error, SpoolError):
            self._on_trouble("an operation on the store failed", error)

    def _ready(self) -> Transaction:
        if self._tx is None:
            db = self._reopen()
            self.tally.load(db)
            self._adopt(db)
            assert self._tx is not None
        return self._tx

    def _adopt(self, db: apsw.Connection) -> None:
        def after_commit(_db: apsw.Connection, _name: str, pages: int) -> int:
            self._wal_pages = pages
            return 0

        db.set_wal_hook(after_commit)
        self._tx = Transaction(db, self.claims, self.tally)

    # --- housekeeping ----------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Keep the log short under load, and shorter where the disk is; to be called after each group was answered."""
        if self._wal_pages >= WAL_PAGES or (self._wal_pages >= WAL_PAGES_LOOK and self._crowded()):
            self._checkpoint()

    def _crowded(self) -> bool:
        """Tell whether the disk has less room than the log takes."""
        if self._tx is None:
            return False
        try:
            disk = os.statvfs(self._tx.db.filename)
        except OSError:  # the next commit tells
            return False
        return disk.f_bavail * disk.f_frsize < self._wal_pages * PAGE

    def _checkpoint(self) -> None:
        tx = self._tx
        if tx is None:
            return
        full = self._wal_pages >= WAL_PAGES_MAX
        try:
            left, done = tx.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE if full else apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return  # a reader still needs the log; the next group tries again
        except apsw.Error as error:
            self._on_trouble("the log could not be checkpointed", error)
            self._wal_pages = 0  # what is in it is safe; try again when more has come, not at once
            return
        if left == done:
            self._wal_pages = 0

    def tidy(self, wanted: Callable[[], bool]) -> None:
        """Tidy up while it is quiet: give free pages back, forget empty counts, write the log home.

        The pages go a few at a time, until the writer is `wanted`.
        """
        tx = self._tx
        if tx is None:
            self._wal_pages = 0
            return
        restless = False
        try:
            free, pages = tx.db.pragma("freelist_count"), tx.db.pragma("page_count")
            if free > VACUUM_PAGES and free > pages // 4:
                for _ in range(VACUUM_STEPS):
                    tx.cursor.execute(f"PRAGMA incremental_vacuum({VACUUM_STEP})").fetchall()
                    if wanted():
                        break
                restless = True
            tx.cursor.execute("DELETE FROM backlog WHERE n = 0")
        except apsw.Error as error:
            self._on_trouble("the store could not be compacted", error)
        self._checkpoint()
        if restless:
            self._wal_pages = max(self._wal_pages, 1)  # come back at the next quiet moment

    def shut(self) -> None:
        if self._tx is not None:
            try:
                self._tx.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error as error:
                self._on_trouble("the log could not be checkpointed at the end", error)
            try:
                self._tx.db.close(True)
            except apsw.Error as error:
                self._on_trouble("the store could not be closed", error)
            self._tx = None


def _run(tx: Transaction, group: Sequence[Job]) -> None:
    """Run a group in order; of what stands side by side and can go together, each kind goes at once."""
    waiting: list[Job] = []
    for job in group:
        if job.operation is not None:
            waiting.append(job)
            continue
        _run_together(tx, waiting)
        waiting = []
        job.result = job.run(tx)
    _run_together(tx, waiting)


def _run_together(tx: Transaction, jobs: Sequence[Job]) -> None:
    of_kind: dict[type, list[Job]] = {}
    for job in jobs:
        of_kind.setdefault(type(job.operation), []).append(job)
    for kind, together in TOGETHER.items():
        if some := of_kind.get(kind):
            for job, result in zip(some, together(tx, [job.operation for job in some]), strict=True):
                job.result = result
