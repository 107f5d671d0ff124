"""Groups of the writer: what fails alone, what fails together, and what memory undoes with the disk."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import State
from sesrelay.seams import SpoolError
from sesrelay.spool.opening import open_store
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer.committing import Committer
from sesrelay.spool.writer.thread import ThreadWriter
from spool_world import NOW, SES, ids, opened, submission


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[ThreadWriter]:
    path = tmp_path / "queue.db"
    committer = Committer(
        open_store(path),
        reopen=lambda: open_store(path),
        on_ended=lambda numbers: None,
        on_trouble=lambda what, error: None,
    )
    made = ThreadWriter(committer, time.monotonic)
    yield made
    await made.close()


def add(number: int) -> object:
    def run(tx: Transaction) -> int:
        tx.cursor.execute("INSERT INTO content VALUES (?, 'x')", (number,))
        tx.tally.message(1, 10)
        tx.claims.take((number, 0))
        tx.ended.append(number)
        return number

    return run


def add_and_fail(number: int) -> object:
    def run(tx: Transaction) -> int:
        add(number)(tx)  # type: ignore[operator]
        raise SpoolError("no")

    return run


def _writer(spool: SqliteSpool) -> ThreadWriter:
    assert isinstance(spool._writer, ThreadWriter)
    return spool._writer


class Gate:
    """Holds the writer in an operation, so that what is submitted meanwhile forms one group."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    @classmethod
    async def shut(cls, writer: ThreadWriter) -> Gate:
        gate = cls()
        gate.held = writer.submit(gate._wait)
        await asyncio.to_thread(gate._entered.wait)
        return gate

    held: asyncio.Future[None]

    def _wait(self, tx: Transaction) -> None:
        self._entered.set()
        self._open.wait()

    async def open(self) -> None:
        self._open.set()
        await self.held


async def test_what_fails_in_a_group_fails_alone_and_leaves_nothing(writer: ThreadWriter) -> None:
    gone: list[int] = []
    writer.committer._on_ended = gone.extend
    gate = await Gate.shut(writer)
    group = [writer.submit(add_and_fail(n) if n == 3 else add(n)) for n in range(6)]  # type: ignore[arg-type]
    await gate.open()
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [each if isinstance(each, int) else type(each) for each in results] == [0, 1, 2, SpoolError, 4, 5]
    rows = await writer.submit(lambda tx: tx.cursor.execute("SELECT message FROM content").fetchall())
    assert rows == [(0,), (1,), (2,), (4,), (5,)]
    assert writer.committer.claims.taken == {(n, 0) for n in (0, 1, 2, 4, 5)}
    assert (writer.committer.tally.messages, writer.committer.tally.octets) == (5, 50)
    assert gone == [0, 1, 2, 4, 5]


async def test_an_error_of_ours_fails_its_caller_only(writer: ThreadWriter) -> None:
    with pytest.raises(SpoolError, match="ZeroDivisionError"):
        await writer.submit(lambda tx: 1 // 0)
    assert await writer.submit(add(1)) == 1  # type: ignore[arg-type]


async def test_a_transaction_that_cannot_commit_fails_all_and_memory_with_it(writer: ThreadWriter) -> None:
    await writer.submit(add(0))  # type: ignore[arg-type]

    def spoil(tx: Transaction) -> None:
        tx.claims.give_back((0, 0))
        tx.cursor.execute("ROLLBACK")  # as SQLite itself does after an I/O error
        raise apsw.IOError("the disk")

    gate = await Gate.shut(writer)
    group = [writer.submit(add(1)), writer.submit(spoil), writer.submit(add(2))]  # type: ignore[arg-type]
    await gate.open()
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [type(each) for each in results] == [SpoolError] * 3
    assert writer.committer.claims.taken == {(0, 0)}
    assert (writer.committer.tally.messages, writer.committer.tally.octets) == (1, 10)
    assert await writer.submit(add(3)) == 3  # type: ignore[arg-type]


async def test_a_store_that_cannot_be_opened_again_answers_and_comes_back(writer: ThreadWriter, tmp_path: Path) -> None:
    calm = writer.committer._reopen

    def broken() -> apsw.Connection:
        raise apsw.CantOpenError("no disk")

    writer.committer._reopen = broken
    gate = await Gate.shut(writer)
    spoilt = writer.submit(lambda tx: tx.cursor.execute("ROLLBACK"))
    await gate.open()
    with pytest.raises(SpoolError):
        await spoilt  # by itself: what shares a group with a ROLLBACK of SQLite's is on its own from there on
    for future in (writer.submit(add(1)), writer.submit(add(1))):  # type: ignore[arg-type]
        with pytest.raises(SpoolError):
            await future
    writer.committer._reopen = calm
    assert await writer.submit(add(1)) == 1  # type: ignore[arg-type]


async def test_the_patient_share_the_sync_of_who_hurries(writer: ThreadWriter) -> None:
    syncs: list[int] = []

    def commit() -> bool:
        syncs.append(1)
        return False  # go on

    assert writer.committer._tx is not None
    writer.committer._tx.db.set_commit_hook(commit)
    outcomes = [writer.submit(add(number), patient=True) for number in range(1, 6)]  # type: ignore[arg-type]
    acceptance = writer.submit(add(9))  # type: ignore[arg-type]
    assert await asyncio.gather(*outcomes, acceptance) == [1, 2, 3, 4, 5, 9]
    assert len(syncs) == 1
    assert await asyncio.wait_for(writer.submit(add(10), patient=True), 5) == 10  # type: ignore[arg-type]


async def test_what_waits_at_close_is_finished(writer: ThreadWriter, tmp_path: Path) -> None:
    gate = await Gate.shut(writer)
    waiting = [writer.submit(add(n)) for n in range(3)]  # type: ignore[arg-type]
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(SpoolError):
        writer.submit(add(9))  # type: ignore[arg-type]
    await gate.open()
    await closing
    assert await asyncio.gather(*waiting) == [0, 1, 2]
    db = open_store(tmp_path / "queue.db")
    assert db.execute("SELECT count(*) FROM content").fetchall() == [(3,)]


async def test_a_claim_survives_that_its_group_runs_again(tmp_path: Path) -> None:
    """A claim in a group that has to run again hands out the same, not what is left."""
    spool = await opened(tmp_path, FakeClock(NOW))
    made = submission(1)
    await spool.accept(made)
    gate = await Gate.shut(_writer(spool))
    claiming = asyncio.ensure_future(spool.claim(SES, 9, NOW))
    again = asyncio.ensure_future(spool.accept(made))
    await asyncio.sleep(0)
    await gate.open()
    with pytest.raises(SpoolError):
        await again
    assert [each.id for each in (await claiming).deliveries] == ids(made)
    await spool.close()


async def test_a_claim_that_nobody_waits_for_any_more_is_no_fault_at_the_end(tmp_path: Path) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    spool = await opened(tmp_path, FakeClock(NOW))
    await spool.accept(submission(1))
    gate = await Gate.shut(_writer(spool))
    claiming = asyncio.ensure_future(spool.claim(SES, 9, NOW))
    await asyncio.sleep(0)
    claiming.cancel()
    closing = asyncio.ensure_future(_writer(spool).close())
    await asyncio.sleep(0)
    await gate.open()
    await closing
    await spool.close()
    assert claiming.cancelled()
    assert faults == []


async def test_the_log_is_written_home_when_it_is_quiet_and_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesrelay.spool.writer.committing.WAL_PAGES", 50)
    spool = await opened(tmp_path)
    for serial in range(300):
        await spool.accept(submission(serial, content=b"x" * 4_000, state=State.HELD))
    assert (tmp_path / "queue.db-wal").stat().st_size < 150 * 4_120
    while _writer(spool).committer.restless:
        await asyncio.sleep(0.02)
    assert (tmp_path / "queue.db").stat().st_size > 300 * 4_000
    await spool.close()


async def test_free_pages_go_back_to_the_disk_when_it_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesrelay.spool.writer.committing.VACUUM_PAGES", 10)
    monkeypatch.setattr("sesrelay.spool.writer.thread.IDLE", 0.01)
    spool = await opened(tmp_path)
    await asyncio.gather(*(spool.accept(submission(serial, content=b"x" * 8_000)) for serial in range(300)))
    await _writer(spool).submit(lambda tx: tx.cursor.execute("DELETE FROM content"))
    full = (tmp_path / "queue.db").stat().st_size
    while _writer(spool).committer.restless:
        await asyncio.sleep(0.02)
    assert (tmp_path / "queue.db").stat().st_size < max(full, 300 * 8_000) // 2
    await spool.close()


async def test_a_flood_that_the_last_life_ended_in_is_given_back_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sesrelay.spool.writer.committing.VACUUM_PAGES", 10)
    spool = await opened(tmp_path)
    await asyncio.gather(*(spool.accept(submission(serial, content=b"x" * 8_000)) for serial in range(300)))
    await _writer(spool).submit(lambda tx: tx.cursor.execute("DELETE FROM content"))
    await spool.close()
    full = (tmp_path / "queue.db").stat().st_size
    monkeypatch.setattr("sesrelay.spool.writer.thread.IDLE", 0.01)
    spool = await opened(tmp_path)
    while (tmp_path / "queue.db").stat().st_size > full // 2:
        await asyncio.sleep(0.02)
    await spool.close()
