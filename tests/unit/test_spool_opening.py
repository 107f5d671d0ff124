"""A store is opened whole or refused with a remedy; what is there is never replaced, emptied or repaired."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from fakes import FakeClock
from sesrelay.seams import Filter, SpoolError
from sesrelay.spool import flow, opening, pages
from sesrelay.spool.errors import LockHeld, StoreRefused
from sesrelay.spool.files import THRESHOLD, Bodies
from sesrelay.spool.lock import StateLock
from sesrelay.spool.migrations import STEPS, migrate
from sesrelay.spool.records import pack, written
from sesrelay.spool.schema import VERSION
from sesrelay.spool.sqlite import SqliteSpool
from somebody import as_root
from spool_world import NOW, SES, ids, opened, submission


async def filled(state: Path) -> None:
    spool = await opened(state)
    await spool.accept(submission(1))
    await spool.close()


async def test_a_store_outlives_its_process(tmp_path: Path) -> None:
    await filled(tmp_path / "deep" / "state")
    spool = await opened(tmp_path / "deep" / "state")
    assert [each.id for each in (await spool.claim(SES, 9, NOW)).deliveries] == ids(submission(1))
    assert (await spool.stats()).messages == 1
    await spool.close()


async def test_a_new_store_is_on_the_disk_with_all_folders_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", noting)
    await filled(tmp_path / "deep" / "state")
    assert {tmp_path, tmp_path / "deep", tmp_path / "deep" / "state"} <= set(synced)


async def test_a_folder_above_that_cannot_be_synced_keeps_no_store_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refusing(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")) == tmp_path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as on squashfs and autofs
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    await filled(tmp_path / "state")


async def test_files_are_not_for_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    spool = await opened(state)
    await spool.accept(submission(1, content=b"x" * (THRESHOLD + 1)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [state, *state.rglob("*")]}
    assert not [name for name, mode in modes.items() if mode & 0o007]
    assert modes["queue.db"] == modes["queue.db-wal"] == 0o640
    await spool.close()


async def test_the_log_is_synced_at_each_commit_and_read_back(tmp_path: Path) -> None:
    db = opening.open_store(tmp_path / "queue.db")
    assert (db.pragma("journal_mode"), db.pragma("synchronous"), db.pragma("auto_vacuum")) == ("wal", 2, 2)
    assert db.wal_autocheckpoint(0) is None
    assert db.pragma("user_version") == VERSION == len(STEPS)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b""), "0 bytes"),
        (lambda path: path.write_bytes(b"once upon a time" * 100), "not an SQLite database"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not an SQLite database"),
        (lambda path: os.truncate(path, path.stat().st_size - 4096), "is truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(path.stat().st_size - 100)), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096)), "damaged"),
    ],
)
async def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path, damage: object, says: str) -> None:
    await filled(tmp_path)
    path = tmp_path / "queue.db"
    damage(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match=says) as refused:
        await opened(tmp_path)
    assert "backup" in str(refused.value)
    assert path.read_bytes() == before
    # The lock is free again: mended, the store opens.
    StateLock.acquire(tmp_path).release()


def test_a_link_in_the_place_of_the_lock_leads_nowhere(tmp_path: Path) -> None:
    """Root takes the lock too: the file of somebody else would be emptied, and given to the owner of the folder."""
    precious = tmp_path / "precious"
    precious.write_text("root's own")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").symlink_to(precious)
    with pytest.raises(StoreRefused, match="symbolic link"):
        StateLock.acquire(tmp_path / "state")
    assert precious.read_text() == "root's own"


async def test_a_log_without_its_database_is_not_thrown_away(tmp_path: Path) -> None:
    await filled(tmp_path)
    (tmp_path / "queue.db").rename(tmp_path / "elsewhere")
    (tmp_path / "queue.db-wal").write_bytes(b"accepted mail")
    with pytest.raises(StoreRefused, match="log"):
        await opened(tmp_path)
    assert (tmp_path / "queue.db-wal").read_bytes() == b"accepted mail"


async def test_a_start_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "queue.db.new").write_bytes(b"half")
    await filled(tmp_path)
    assert not (tmp_path / "queue.db.new").exists()


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path)
    db = apsw.Connection(str(tmp_path / "queue.db"))
    db.pragma("user_version", VERSION + 1)
    db.close()
    with pytest.raises(StoreRefused, match="newer version"):
        await opened(tmp_path)


async def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "queue.db"))
    db.pragma("user_version", 1)
    db.close()
    with pytest.raises(StoreRefused, match="another program"):
        await opened(tmp_path)


async def test_a_locked_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT", 10)
    await filled(tmp_path)
    db = apsw.Connection(str(tmp_path / "queue.db"))
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreRefused, match="locked"):
        await opened(tmp_path)
    db.close()
    await (await opened(tmp_path)).close()


async def test_a_sqlite_that_loses_commits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "SQLITE_VERSION_NUMBER", 3_051_002)
    with pytest.raises(StoreRefused, match="lose commits"):
        await opened(tmp_path)


async def test_a_state_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreRefused, match="state_dir"):
        await opened(tmp_path / "file")


def test_a_migration_is_whole_or_nothing(tmp_path: Path) -> None:
    db = opening.open_store(tmp_path / "queue.db")
    with pytest.raises(apsw.SQLError):
        migrate(db, "queue.db", [*STEPS, "CREATE TABLE new (a)", "CREATE nonsense"])
    assert db.pragma("user_version") == VERSION
    assert not db.table_exists(None, "new")
    migrate(db, "queue.db", [*STEPS, "CREATE TABLE new (a)"])
    assert db.pragma("user_version") == VERSION + 1
    assert db.table_exists(None, "new")


async def test_a_queue_of_the_first_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    db = apsw.Connection(str(path))
    db.pragma("auto_vacuum", 2)
    migrate(db, "queue.db", STEPS[:1])
    made = [submission(serial, site=f"site{serial % 3}", recipients=["a@example.org", "b@example.org"]) for serial in range(1, 100)]
    for each in made:
        packed = pack(each, in_file=False)
        db.execute(flow.INSERT_MESSAGE, written(packed.message))
        db.execute(flow.INSERT_CONTENT, (packed.number, packed.content))
        db.executemany(flow.INSERT_DELIVERY, packed.deliveries)
    db.execute("INSERT INTO backlog VALUES (?, ?, 1, 0, 198)", SES)
    db.close()
    spool = await opened(tmp_path)
    claim = await spool.claim(SES, 1000, NOW)
    assert sorted(each.id for each in claim.deliveries) == [each for one in made for each in ids(one)]
    assert await spool.content(made[0].message.id) == made[0].content
    await spool.close()


async def test_only_one_holds_a_state_dir(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    with pytest.raises(LockHeld, match=str(os.getpid())) as held:
        await opened(tmp_path)
    assert held.value.pid == os.getpid()
    await spool.close()
    with StateLock.acquire(tmp_path) as lock:
        spool = await opened(tmp_path, lock=lock)
        await spool.close()
        with pytest.raises(LockHeld):
            StateLock.acquire(tmp_path)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from sesrelay.spool.lock import StateLock\n"
        "lock = StateLock.acquire(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LockHeld) as held:
        StateLock.acquire(tmp_path)
    assert held.value.pid == child.pid
    child.kill()
    child.communicate()
    StateLock.acquire(tmp_path).release()


async def test_orphans_are_swept_at_start_and_bodies_in_use_are_not(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    made = submission(1, content=b"x" * (THRESHOLD + 1))
    await spool.accept(made)
    await spool.close()
    bodies = Bodies(tmp_path / "bodies")
    bodies.write(submission(2).message.id, b"orphan")
    (tmp_path / "bodies" / "README").write_text("not ours")
    spool = await opened(tmp_path)
    assert sorted(path.name for path in (tmp_path / "bodies").iterdir()) == sorted([made.message.id, "README"])
    assert await spool.content(made.message.id) == made.content
    await spool.change("delete", Filter(ids=(made.message.id,)), NOW)
    await spool.close()
    assert [path.name for path in (tmp_path / "bodies").iterdir()] == ["README"]


async def test_a_body_that_is_missing_is_an_error_of_the_store(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    made = submission(1, content=b"x" * (THRESHOLD + 1))
    await spool.accept(made)
    (tmp_path / "bodies" / made.message.id).unlink()
    with pytest.raises(SpoolError):
        await spool.content(made.message.id)
    await spool.close()


async def test_a_caller_that_goes_away_leaves_nothing_claimed_and_nothing_half_done(tmp_path: Path) -> None:
    spool = await opened(tmp_path, FakeClock())
    large = submission(1, content=b"x" * (THRESHOLD + 1))
    for call in (spool.accept(large), spool.accept(submission(2))):
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        task.cancel()
    claiming = asyncio.ensure_future(spool.claim(SES, 9, NOW))
    await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    while (await spool.stats()).messages < 2:
        await asyncio.sleep(0.01)
    await spool.ping()
    assert len((await spool.claim(SES, 9, NOW)).deliveries) == 2
    assert await spool.content(large.message.id) == large.content
    await spool.close()


@as_root
async def test_a_store_that_root_makes_is_its_folders_owners(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65_534, 65_533)
    with StateLock.acquire(state) as lock:
        spool = await SqliteSpool.open(state, clock=FakeClock(), on_trouble=lambda what, error: None, lock=lock)
        await spool.accept(submission(1, content=b"x" * (THRESHOLD + 1)))
        made = [path for path in state.rglob("*") if "-shm" not in path.name]
        assert {path.name for path in made} >= {"lock", "queue.db", "queue.db-wal", "bodies"}
        assert len(made) == 5
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65_534, 65_533)}
        await spool.close()


async def test_no_other_connection_begins_the_log_anew_beneath_one_that_looked_at_it(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "state")
    await spool.accept(submission(1))
    shutil.copytree(tmp_path / "state", tmp_path / "killed")
    await spool.close()
    db = opening.open_store(tmp_path / "killed" / "queue.db")
    # Source: sqlite.org/walformat.html §2.3: this octet is locked as long as anybody is connected.
    other = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)"
    command = [sys.executable, "-c", other, tmp_path / "killed" / "queue.db-shm"]
    assert "BlockingIOError" in subprocess.run(command, check=False, capture_output=True, text=True).stderr
    db.close()


def test_a_log_that_is_done_with_and_could_not_be_begun_anew_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    db = opening.open_store(path)
    for n in range(3):
        db.execute("INSERT INTO sent VALUES ('site', ?, 1)", (n,))
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    log = Path(f"{path}-wal").read_bytes()
    db.execute("INSERT INTO sent VALUES ('site', 3, 1)")
    assert pages.log_is_whole(Path(f"{path}-wal"), db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])
    Path(f"{path}-wal").write_bytes(log)
    assert pages.log_is_whole(Path(f"{path}-wal"), 0)
    Path(f"{path}-wal").write_bytes(log[:2000] + b"damaged" + log[2007:])
    assert not pages.log_is_whole(Path(f"{path}-wal"), 0)
    db.close()
