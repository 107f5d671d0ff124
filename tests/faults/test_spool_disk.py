"""A disk that is full, or that fails to sync: nobody is told a lie, and the store goes on as soon as the disk does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter, NoSpace, SpoolError
from sesrelay.spool.files import THRESHOLD, Bodies
from sesrelay.spool.sqlite import SqliteSpool
from small_disk import mounted
from spool_world import NOW, SES, deferred, delivered, ids, opened, settlement, submission


class FailingFiles(apsw.VFS):
    """The default VFS, but writes to the log, or its syncs, fail while told to, and so does what is read at certain offsets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fail_sync = False
        self.fail_write = False
        self.unreadable: set[int] = set()
        self.failed = 0
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    def __init__(self, vfs: FailingFiles, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        self._log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        if self._vfs.fail_sync and self._log:
            self._vfs.failed += 1
            raise apsw.IOError("the disk does not sync")
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if not self._log and offset in self._vfs.unreadable:
            self._vfs.failed += 1
            raise apsw.IOError("the disk does not read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._vfs.fail_write and self._log:
            self._vfs.failed += 1
            raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[FailingFiles]:
    vfs = FailingFiles(f"failing-{os.getpid()}-{request.node.name}")
    yield vfs
    vfs.unregister()


async def test_a_content_that_cannot_be_read_keeps_no_attempt_from_its_record(tmp_path: Path, disk: FailingFiles) -> None:
    spool = await opened(tmp_path)
    made = [submission(serial, content=b"Subject: x\r\n\r\n" + f"{serial} here\r\n".encode() * 3_000) for serial in range(1, 4)]
    for one in made:
        await spool.accept(one)
    await spool.close()
    spool = await opened(tmp_path, vfs=disk.name)
    disk.unreadable.add((tmp_path / "queue.db").read_bytes().index(b"2 here") // 4096 * 4096)
    results = await asyncio.gather(*(spool.open_attempt(ids(one), NOW + 60, read=len(one.content)) for one in made))
    assert disk.failed
    assert [each.ids for each in results] == [frozenset(ids(one)) for one in made]
    assert [each.content for each in results[:2]] == [made[0].content, None]
    with pytest.raises(SpoolError):
        await spool.content(made[1].message.id)
    assert await spool.content(made[2].message.id) == made[2].content
    await spool.settle(settlement(made[2], delivered()))
    disk.unreadable.clear()
    assert await spool.content(made[1].message.id) == made[1].content
    await spool.close()


@pytest.mark.parametrize("fault", ["fail_sync", "fail_write"])
async def test_a_commit_that_fails_stores_nothing_and_says_so_to_all(tmp_path: Path, disk: FailingFiles, fault: str) -> None:
    told: list[str] = []
    spool = await opened(tmp_path, vfs=disk.name, on_trouble=lambda what, error: told.append(what))
    kept = submission(100, state=State.QUEUED)
    flying = submission(101, state=State.IN_FLIGHT)
    for made in (kept, flying):
        await spool.accept(made)
    setattr(disk, fault, True)
    results = await asyncio.gather(
        *(spool.accept(submission(serial)) for serial in range(20)),
        spool.settle(settlement(flying, delivered())),
        spool.claim(SES, 9, NOW),
        return_exceptions=True,
    )
    assert disk.failed
    assert [type(each) for each in results[:21]] == [SpoolError] * 21
    with pytest.raises(SpoolError):
        await spool.open_attempt(ids(kept), NOW + 60)
    assert "the store could not commit" in told
    setattr(disk, fault, False)
    # What was claimed in the failed group, or only read, is not lost.
    if not isinstance(results[21], BaseException):
        await spool.unclaim([each.id for each in results[21].deliveries])
    assert [each.id for each in (await spool.claim(SES, 99, NOW)).deliveries] == ids(kept)
    assert [each.id for each in await spool.open_attempts(9)] == ids(flying)
    assert (await spool.stats()).counts == {("ses", State.QUEUED): 1, ("ses", State.IN_FLIGHT): 1}
    for serial in range(20):
        await spool.accept(submission(serial))
    await spool.settle(settlement(flying, delivered()))
    await spool.close()
    spool = await opened(tmp_path)
    assert (await spool.stats()).counts == {("ses", State.QUEUED): 21}
    assert len(await spool.list(Filter(), NOW, None, 99)) == 21
    await spool.close()


async def test_what_failed_syncs_left_in_the_log_is_not_taken_for_damage(tmp_path: Path, disk: FailingFiles) -> None:
    spool = await opened(tmp_path / "state", vfs=disk.name)
    await spool.accept(submission(1))
    disk.fail_sync = True
    for count in (60, 40, 20, 5):  # each leaves the end of the one before behind it
        await asyncio.gather(*(spool.accept(submission(100 + serial)) for serial in range(count)), return_exceptions=True)
    disk.fail_sync = False
    await spool.accept(submission(2))
    shutil.copytree(tmp_path / "state", tmp_path / "killed")
    await spool.close()
    spool = await opened(tmp_path / "killed")
    assert {submission(1).message.id, submission(2).message.id} <= {
        each.delivery.id.message for each in await spool.list(Filter(), NOW, None, 99)
    }
    await spool.close()


async def test_below_the_reserve_nothing_new_is_taken_and_the_rest_works(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = await opened(tmp_path, clock)
    made = submission(1)
    await spool.accept(made)
    await spool.close()
    spool = await opened(tmp_path, clock, min_free_disk=1 << 60)
    for content in (b"small", b"x" * (THRESHOLD + 1)):
        with pytest.raises(NoSpace):
            await spool.accept(submission(2, content=content))
    assert (await spool.open_attempt(ids(made), NOW + 60)).ids == set(ids(made))
    await spool.settle(settlement(made, deferred(), reports=[submission(3, sender="")]))
    assert await spool.change("hold", Filter(sender="@example.com"), NOW) == 1
    assert (await spool.stats()).messages == 2
    await spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", mebibytes=3) as place:
        yield place


async def fill(spool: SqliteSpool, size: int) -> list[str]:
    """Accept until the disk is full; return what was taken."""
    taken = []
    for serial in range(1, 2_000):
        made = submission(serial, content=os.urandom(size))
        try:
            await spool.accept(made)
        except SpoolError:
            return taken
        taken.append(made.message.id)
    raise AssertionError("the disk never filled")


@pytest.mark.parametrize("size", [20_000, THRESHOLD + 1])
async def test_a_full_disk_refuses_and_recovers_without_a_restart(small_disk: Path, size: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    spool = await opened(small_disk / "state")
    taken = await fill(spool, size)
    assert taken
    assert [each.delivery.id.message for each in await spool.list(Filter(), NOW, None, 9_999)] == taken
    with pytest.raises(SpoolError):
        await spool.accept(submission(2_001, content=os.urandom(size)))
    ballast.unlink()
    again = submission(2_002)
    await spool.accept(again)
    assert (await spool.open_attempt(ids(again), NOW + 60)).ids == set(ids(again))
    await spool.settle(settlement(again, delivered()))
    for name in taken:
        assert len(await spool.content(name)) == size
    files = sorted(path.name for path in (small_disk / "state" / "bodies").iterdir())
    assert files == (taken if size > THRESHOLD else [])
    await spool.close()
    spool = await opened(small_disk / "state")
    assert [each.delivery.id.message for each in await spool.list(Filter(), NOW, None, 9_999)] == taken
    await spool.close()


async def pass_on(spool: SqliteSpool, serials: range) -> None:
    """Accept and deliver messages of 20 KB."""
    for serial in serials:
        made = submission(serial, content=os.urandom(20_000))
        await spool.accept(made)
        assert (await spool.open_attempt(ids(made), NOW + 60)).ids == set(ids(made))
        await spool.settle(settlement(made, delivered()))


async def test_the_log_leaves_a_small_disk_its_room(small_disk: Path) -> None:
    """Under load it would grow to more than there is here."""
    spool = await opened(small_disk / "state")
    await pass_on(spool, range(300))
    assert (await spool.stats()).messages == 0
    await spool.close()


async def test_on_a_full_disk_mail_has_the_room_of_mail_that_has_gone(small_disk: Path) -> None:
    spool = await opened(small_disk / "state")
    waiting = [submission(serial, content=os.urandom(20_000)) for serial in range(20)]
    for made in waiting:
        await spool.accept(made)
    for made in waiting:
        await spool.open_attempt(ids(made), NOW + 60)
        await spool.settle(settlement(made, delivered()))
    await spool.close()
    spool = await opened(small_disk / "state")
    await pass_on(spool, range(100, 102))
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    await pass_on(spool, range(200, 400))
    await spool.close()


async def test_a_body_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = await opened(tmp_path)
    made = submission(1, content=b"x" * (THRESHOLD + 1))
    with monkeypatch.context() as patch:
        patch.setattr("sesrelay.spool.files.os.fsync", full)
        with pytest.raises(SpoolError):
            await spool.accept(made)
    assert list((tmp_path / "bodies").iterdir()) == []
    await spool.accept(made)
    assert await spool.content(made.message.id) == made.content
    await spool.close()


@pytest.mark.parametrize("stored", [False, True], ids=["nothing of it", "all of it"])
async def test_the_file_of_a_message_that_failed_stays_only_where_the_message_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    spool = await opened(tmp_path)
    made = submission(1, content=b"x" * (THRESHOLD + 1))
    submit = spool._writer.submit

    async def broken(*asked: Any, **more: Any) -> None:
        if stored:
            await submit(*asked, **more)
        raise SpoolError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spool._contents._writer, "submit", broken)
        with pytest.raises(SpoolError):
            await spool.accept(made)
    assert [each.name for each in (tmp_path / "bodies").iterdir()] == [made.message.id] * stored
    if stored:
        assert await spool.content(made.message.id) == made.content
    await spool.close()


def test_what_comes_in_is_written_while_the_disk_has_room_for_it(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path)
    file = bodies.scratch()
    file.append(b"abc")
    file.append(b"defg")
    assert (file.size, file.read_at(0, 7), file.read_at(2, 3)) == (7, b"abcdefg", b"cde")
    with pytest.raises(SpoolError, match="has 7 octets instead of 8"):
        file.read_at(5, 3)
    full = bodies.scratch(1 << 62)
    with pytest.raises(NoSpace):
        full.append(b"abc")
    assert (full.size, full.read_at(0, 0)) == (0, b"")
    assert list(tmp_path.iterdir()) == [], "it has no name"
    descriptor = file._descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(SpoolError):
        Bodies(tmp_path / "nowhere").scratch()


async def test_damage_found_at_use_is_an_error_of_the_store(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    for serial in range(200):
        await spool.accept(submission(serial, content=b"x" * 4_000))
    await spool.close()
    path = tmp_path / "queue.db"
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096 * 60)
    spool = await opened(tmp_path)
    wrong = 0
    for serial in range(200):
        try:
            await spool.content(submission(serial).message.id)
        except SpoolError:
            wrong += 1
    assert wrong
    await spool.close()
