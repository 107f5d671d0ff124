"""The one thread that writes: all operations that wait go into one transaction, with one sync for all.

No timer: what gathered during the last sync is the next group. A group first runs bare, and what is of one kind in it together (`bulk`); when one of its operations
fails, the transaction is rolled back and run again with a savepoint around each, so that only the failed one fails.

Invariant: a future is resolved with a result only after COMMIT has returned.
Invariant: a COMMIT that fails, fails all who waited; the connection is closed and opened anew before the next group.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import apsw

from sesrelay.seams import SpoolError
from sesrelay.spool.bulk import TOGETHER, Operation
from sesrelay.spool.claims import Claims
from sesrelay.spool.tally import Tally
from sesrelay.spool.transaction import Transaction

T = TypeVar("T")

GROUP_MAX = 1_000  # operations in one transaction: bounds what one caller waits for the others
GROUP_OCTETS = 16 * 1024 * 1024
IDLE = 0.25  # seconds without work after which the log is checkpointed
WAL_PAGES = 4_000  # pages of the log at which it is checkpointed under load: 16 MB
WAL_PAGES_MAX = 32_000  # at which the writer waits for readers and starts the log anew: 128 MB
VACUUM_PAGES = 2_048  # free pages that may stay; above, and above a quarter of the file, some are given back when idle
VACUUM_STEP = 512
VACUUM_STEPS = 8  # in one quiet moment, which the first operation that comes ends
LINGER = 0.001  # seconds that outcomes wait for an acceptance to share its sync; it saves a lone client every second one


class Job(Generic[T]):
    """One operation that waits, and the future of who waits for it."""

    __slots__ = ("error", "future", "loop", "octets", "operation", "patient", "result", "run")

    def __init__(
        self,
        run: Callable[[Transaction], T],
        operation: Operation[T] | None,
        loop: asyncio.AbstractEventLoop,
        octets: int,
        patient: bool,
    ) -> None:
        self.run = run
        self.operation = operation
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.octets = octets
        self.patient = patient
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs on: its own thread, but for `submit`. `reopen` opens the store again after a failed commit."""

    def __init__(
        self,
        db: apsw.Connection,
        *,
        reopen: Callable[[], apsw.Connection],
        on_ended: Callable[[list[int]], None],
        on_trouble: Callable[[str, BaseException | None], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.claims = Claims()
        self.tally = Tally(db)
        self._reopen = reopen
        self._on_ended = on_ended
        self._on_trouble = on_trouble
        self._monotonic = monotonic
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._closing = False
        self._wal_pages = 1  # so that the first quiet moment is used: the last life may have ended in a flood
        self._tx: Transaction | None = None
        self._adopt(db)
        self._thread = threading.Thread(target=self._work, name="spool-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Transaction], T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        """Queue an operation. It may run more than once, each time after all that it did was undone.

        `patient`: nobody outside waits for it, so it may wait LINGER for others to share its sync with. Raises: SpoolError
        """
        return self._put(Job(run, None, asyncio.get_running_loop(), octets, patient))

    def perform(self, operation: Operation[T], octets: int = 0, *, patient: bool = False) -> asyncio.Future[T]:
        """Queue an operation that can go with others of its kind. See `submit`. Raises: SpoolError"""
        return self._put(Job(operation.alone, operation, asyncio.get_running_loop(), octets, patient))

    def _put(self, job: Job[T]) -> asyncio.Future[T]:
        if self._closing:
            raise SpoolError("the store is closed")
        self._queue.put(job)
        return job.future

    async def close(self) -> None:
        """Finish what waits, checkpoint, close."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- on the thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        running = True
        while running:
            try:
                job = self._queue.get(timeout=IDLE if self._wal_pages else None)
            except Empty:
                self._tidy()
                continue
            group, running = self._gather(job)
            if group:
                try:
                    self._commit(group)
                except BaseException as error:  # a fault of ours must not end the thread, nor leave anyone waiting
                    self._fail(group, error)
                self._answer(group)
            if self._wal_pages >= WAL_PAGES:
                self._checkpoint()
        self._shut()

    def _gather(self, job: Job[Any] | None) -> tuple[list[Job[Any]], bool]:
        """Return what waits, from `job` on, to be committed together, and whether there is more to come.

        What gathered during the last sync is the next group; only where all of it is patient is anything waited for.
        """
        group: list[Job[Any]] = []
        octets = 0
        hurried = False
        until = self._monotonic() + LINGER
        while job is not None:
            group.append(job)
            octets += job.octets
            hurried = hurried or not job.patient
            if len(group) >= GROUP_MAX or octets >= GROUP_OCTETS:
                return group, True
            try:
                job = self._queue.get_nowait() if hurried else self._queue.get(timeout=max(until - self._monotonic(), 0.0))
            except Empty:
                return group, True
        return group, False

    def _commit(self, group: list[Job[Any]]) -> None:
        try:
            tx = self._ready()
            tx.cursor.execute("BEGIN IMMEDIATE")
            try:
                _run(tx, group)
            except Exception as error:
                self._undo(tx)
                if len(group) == 1 and group[0].operation is None:
                    group[0].error = error
                    self._examine(error)
                    return
                tx.cursor.execute("BEGIN IMMEDIATE")
                self._one_by_one(tx, group)
            tx.tally.flush(tx.cursor)
            tx.cursor.execute("COMMIT")
        except Exception as error:
            self._on_trouble("the store could not commit", error)
            self._fail(group, error)
            return
        tx.claims.committed()
        tx.tally.committed()
        if tx.ended:
            ended, tx.ended = tx.ended, []
            self._on_ended(ended)

    def _one_by_one(self, tx: Transaction, group: list[Job[Any]]) -> None:
        """Run the group with a savepoint an operation. Raises: what ended the whole transaction"""
        for job in group:
            mark, counts, ended = tx.claims.mark(), tx.tally.snapshot(), len(tx.ended)
            tx.cursor.execute("SAVEPOINT operation")
            try:
                job.result = job.run(tx)
            except Exception as error:
                if tx.db.get_autocommit():
                    raise  # SQLite has rolled back everything: disk full, I/O error
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

    def _fail(self, group: list[Job[Any]], error: BaseException) -> None:
        """Fail all of a group, and have the store opened anew: after a failed write nothing of the connection is trusted."""
        for job in group:
            job.error = error
        tx, self._tx = self._tx, None
        self.claims.undo()
        self.tally.forget()
        if tx is not None:
            try:
                tx.db.close(True)
            except apsw.Error as closing:
                self._on_trouble("the store could not be closed", closing)

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

    def _answer(self, group: list[Job[Any]]) -> None:
        """Wake each loop once, however many wait there."""
        loops: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
        for job in group:
            loops.setdefault(job.loop, []).append(job)
        for loop, jobs in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, jobs)
            except RuntimeError:
                continue  # that loop is closed, and nobody waits there any more

    # --- housekeeping ----------------------------------------------------------------------------------------

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

    def _tidy(self) -> None:
        """Use the quiet: give free pages back a few at a time, forget empty counts, write the log home."""
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
                    if not self._queue.empty():
                        break
                restless = True
            tx.cursor.execute("DELETE FROM backlog WHERE n = 0")
        except apsw.Error as error:
            self._on_trouble("the store could not be tidied", error)
        self._checkpoint()
        if restless:
            self._wal_pages = max(self._wal_pages, 1)  # come back at the next quiet moment

    def _shut(self) -> None:
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


def _run(tx: Transaction, group: list[Job[Any]]) -> None:
    """Run a group in order; of what stands side by side and can go together, each kind goes at once."""
    waiting: list[Job[Any]] = []
    for job in group:
        if job.operation is not None:
            waiting.append(job)
            continue
        _run_together(tx, waiting)
        waiting = []
        job.result = job.run(tx)
    _run_together(tx, waiting)


def _run_together(tx: Transaction, jobs: list[Job[Any]]) -> None:
    for kind, together in TOGETHER.items():
        some = [job for job in jobs if type(job.operation) is kind]
        if some:
            for job, result in zip(some, together(tx, [job.operation for job in some]), strict=True):
                job.result = result


def _resolve(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        future = job.future
        if future.done():
            continue  # cancelled: the caller has gone
        if job.error is None:
            future.set_result(job.result)
        else:
            future.set_exception(as_spool_error(job.error))


def as_spool_error(error: BaseException) -> SpoolError:
    """Return what a caller is told: a SpoolError, with the trouble behind it."""
    if isinstance(error, SpoolError):
        return error
    told = SpoolError(f"the store failed: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
