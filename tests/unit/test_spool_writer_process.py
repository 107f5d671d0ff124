"""The writer in a process of its own: what it does with the daemon, and what becomes of each when the other dies."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import sesrelay.spool
from fakes import FakeClock
from relay_process import wait_for
from sesrelay.app.loop import new_event_loop
from sesrelay.mail.delivery import Delivery, Placement, State
from sesrelay.seams import Filter, SpoolError
from sesrelay.spool.bulk import Accept, Open, Settle, made_of, plain
from sesrelay.spool.errors import LockHeld, StoreDamaged, StoreRefused
from sesrelay.spool.lock import StateLock
from sesrelay.spool.opening import open_store
from sesrelay.spool.records import event_rows, pack, verdict_row
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.spool.transaction import execute
from sesrelay.spool.writer import process
from sesrelay.spool.writer.frames import Frames, frame
from sesrelay.spool.writer.process import DIED, ProcessWriter
from spool_world import MX, NOW, SES, delivered, ids, opened, settlement, submission

SPOOL = Path(sesrelay.spool.__file__).parent
ADD = partial(execute, statement="INSERT INTO content VALUES (?, 'x')")


def stored(folder: Path) -> list[int]:
    db = open_store(folder / "queue.db")
    found = [number for (number,) in db.execute("SELECT message FROM content ORDER BY 1").fetchall()]
    db.close()
    return found


class Rig:
    """A writer with its lock, its death noted instead of died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = StateLock.acquire(folder)
        self.troubles: list[str] = []
        self.ended: list[int] = []
        self.deaths: list[int] = []

    async def start(self) -> ProcessWriter:
        self.writer = await ProcessWriter.start(
            self.folder / "queue.db", self.lock, on_ended=self.ended.extend, on_trouble=lambda what, _: self.troubles.append(what)
        )
        self.writer._die = self.deaths.append
        return self.writer

    @property
    def pid(self) -> int:
        return self.writer._process.pid

    async def killed(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        await self.writer._gone
        self.writer._process.wait()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_what_fails_fails_alone(rig: Rig) -> None:
    writer = await rig.start()
    group = [writer.submit(partial(ADD, bindings=(number,))) for number in (1, 2, 2, 3)]
    results = await asyncio.gather(*group, return_exceptions=True)
    assert [type(each) for each in results] == [type(None), type(None), SpoolError, type(None)]
    assert rig.troubles == ["an operation on the store failed"]
    await writer.close()
    assert stored(rig.folder) == [1, 2, 3]


async def test_what_cannot_be_sent_fails_who_asked_and_nothing_else(rig: Rig) -> None:
    writer = await rig.start()
    with pytest.raises(SpoolError):
        await writer.submit(lambda tx: None)
    assert rig.troubles == ["a request could not be sent to the writer process of the queue"]
    await writer.submit(partial(ADD, bindings=(1,)))
    await writer.close()


async def test_what_waits_at_close_is_finished_and_nothing_is_asked_any_more(rig: Rig) -> None:
    writer = await rig.start()
    waiting = [writer.submit(partial(ADD, bindings=(number,))) for number in range(5)]
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(SpoolError, match="closed"):
        writer.submit(partial(ADD, bindings=(9,)))
    await closing
    await asyncio.gather(*waiting)
    assert stored(rig.folder) == [0, 1, 2, 3, 4]
    assert rig.deaths == []
    await writer.close()  # as often as one likes


async def test_signals_that_end_a_service_are_not_for_the_writer(rig: Rig) -> None:
    writer = await rig.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(rig.pid, number)
    await writer.submit(partial(ADD, bindings=(1,)))
    await writer.close()
    assert rig.deaths == []


async def test_one_that_does_not_end_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.1)
    writer = await rig.start()
    await writer.submit(partial(ADD, bindings=(1,)))
    os.kill(rig.pid, signal.SIGSTOP)
    waiting = writer.submit(partial(ADD, bindings=(2,)))
    await writer.close()
    with pytest.raises(SpoolError):
        await waiting
    assert [each.split(",")[0] for each in rig.troubles] == [
        "the writer process of the queue does not end",
        "the writer process of the queue ended before it finished its work",
    ]
    assert rig.deaths == []
    assert stored(rig.folder) == [1]


async def test_its_death_is_the_daemons(rig: Rig) -> None:
    writer = await rig.start()
    os.kill(rig.pid, signal.SIGSTOP)
    waiting = writer.submit(partial(ADD, bindings=(1,)))
    await rig.killed()
    assert rig.deaths == [DIED]
    assert "sesrelay exits" in rig.troubles[0]
    assert not waiting.done()  # nobody can say whether it is stored


async def test_a_daemon_that_dies_leaves_nothing_begun_behind_it(rig: Rig) -> None:
    writer = await rig.start()
    await writer.submit(partial(ADD, bindings=(1,)))
    os.kill(rig.pid, signal.SIGSTOP)
    writer.submit(partial(ADD, bindings=(2,)))
    await asyncio.sleep(0.05)
    assert writer._transport is not None
    writer._transport.abort()
    await writer._gone
    os.kill(rig.pid, signal.SIGCONT)
    await asyncio.to_thread(writer._process.wait, 30)
    assert stored(rig.folder) == [1]


async def test_the_lock_is_held_until_the_writer_of_a_dead_daemon_has_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.start()
    os.kill(rig.pid, signal.SIGSTOP)
    rig.lock.release()  # as the daemon's death does
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    monkeypatch.setattr("sesrelay.spool.lock.LOOKS", 5)
    with pytest.raises(LockHeld):  # the pid in it lives: this process
        StateLock.acquire(rig.folder)
    (rig.folder / "lock").write_text(f"{dead.pid}\n")
    with pytest.raises(LockHeld):  # it does not end
        StateLock.acquire(rig.folder)
    monkeypatch.setattr("sesrelay.spool.lock.LOOKS", 1_500)
    taking = asyncio.create_task(asyncio.to_thread(StateLock.acquire, rig.folder))
    await asyncio.sleep(0.1)
    assert not taking.done()
    await rig.killed()
    (await taking).release()


async def test_a_start_that_is_given_up_leaves_nothing(rig: Rig) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    starting = asyncio.create_task(rig.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    rig.lock.release()
    StateLock.acquire(rig.folder).release()
    assert rig.troubles == complaints == []


def test_a_start_that_is_given_up_may_have_its_connection_closed_already(tmp_path: Path) -> None:
    """uvloop closes it when SIGINT comes, and then has nothing to write an end to."""

    async def given_up() -> None:
        rig = Rig(tmp_path)
        writer = await rig.start()
        assert writer._transport is not None
        writer._transport.abort()
        await asyncio.sleep(0)
        await writer.close()
        rig.lock.release()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(given_up())


async def test_a_store_that_is_refused_says_so_as_it_does_on_a_thread(rig: Rig) -> None:
    (rig.folder / "queue.db").write_bytes(b"")
    with pytest.raises(StoreDamaged, match=r"is empty \(0 bytes\)"):
        await rig.start()
    assert rig.troubles == []
    rig.lock.release()
    with pytest.raises(StoreDamaged):
        await opened(rig.folder, apart=True)
    StateLock.acquire(rig.folder).release()


@pytest.mark.parametrize("words", [("/nonexistent/python",), ("false",)], ids=["not there", "ends at once"])
async def test_a_writer_that_does_not_come_up_is_a_refusal(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(process, "COMMAND", words)
    with pytest.raises(StoreRefused, match="writer"):
        await rig.start()
    assert rig.deaths == []


async def test_a_commit_that_fails_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    told = threading.Event()
    spool = await opened(tmp_path, FakeClock(NOW), apart=True, on_trouble=lambda what, error: told.set())
    made = submission(1)
    await spool.accept(made)
    with pytest.raises(SpoolError):
        await spool._writer.submit(partial(execute, statement="ROLLBACK", bindings=()))
    assert told.is_set()
    await spool.accept(submission(2))
    assert [each.id for each in (await spool.claim(SES, 1, NOW)).deliveries] == ids(made)
    await spool.close()


async def test_files_go_after_the_end_of_their_message(tmp_path: Path) -> None:
    spool = await opened(tmp_path, FakeClock(NOW), apart=True)
    made = submission(1, content=b"Subject: x\r\n\r\n" + b"x" * 300_000, state=State.IN_FLIGHT)
    await spool.accept(made)
    files = tmp_path / "bodies"
    assert len(list(files.iterdir())) == 1
    await spool.settle(settlement(made, delivered()))
    await asyncio.to_thread(wait_for, "the file is gone", lambda: not list(files.iterdir()))
    await spool.close()


@pytest.mark.parametrize("apart", [False, True], ids=["thread", "process"])
async def test_placing_anew_undoes_nothing_that_comes_between(tmp_path: Path, apart: bool) -> None:
    """An operator has it tried at once while it is being placed where it belongs now."""
    spool = await opened(tmp_path, FakeClock(NOW), apart=apart)
    made = submission(1, due=NOW + 9_000)
    await spool.accept(made)
    retried: list[asyncio.Future[int]] = []

    def place(delivery: Delivery) -> Placement:
        if not retried:
            retried.append(asyncio.ensure_future(spool.change("retry", Filter(ids=(made.message.id,)), NOW)))
            # So that it is done between the two steps: nothing is asked of the writer before it.
            spool._writer.submit(partial(execute, statement="UPDATE delivery SET due = ?", bindings=(NOW,)))
        return replace(delivery.placement, lane=MX, route="other")

    assert await spool.rekey(place, None, 10) is None
    assert await retried[0] == 1
    (found,) = (await spool.claim(MX, 10, NOW)).deliveries
    assert (found.due, found.placement.route) == (NOW, "other")
    await spool.close()


@pytest.mark.parametrize("apart", [False, True], ids=["thread", "process"])
async def test_who_places_last_prevails(tmp_path: Path, apart: bool) -> None:
    spool = await opened(tmp_path, FakeClock(NOW), apart=apart)
    await spool.accept(submission(1))
    routes = ("old", "new")
    await asyncio.gather(*(spool.rekey(lambda one, to=to: replace(one.placement, route=to), None, 10) for to in routes))  # type: ignore[misc]
    (found,) = (await spool.claim(SES, 10, NOW)).deliveries
    assert found.placement.route == "new"
    await spool.close()


async def test_it_says_as_the_thread_does_how_much_is_open(tmp_path: Path) -> None:
    async def seen(apart: bool) -> object:
        spool: SqliteSpool = await opened(tmp_path / str(apart), FakeClock(NOW), apart=apart)
        for serial in range(4):
            await spool.accept(submission(serial))
        await spool.claim(SES, 1, NOW)
        first = await spool.stats()
        await spool.close()
        spool = await opened(tmp_path / str(apart), FakeClock(NOW), apart=apart)
        again = await spool.stats()
        await spool.close()
        return first, again

    assert await seen(True) == await seen(False)


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 1_000], ids=lambda octets: f"by {octets}")
def test_frames_come_whole_however_the_stream_is_cut(cut: int) -> None:
    sent: list[object] = [None, (1, "x" * 5_000), b"y" * 70_000, submission(1), {}]
    stream, frames = b"".join(map(frame, sent)), Frames()
    came = [each for start in range(0, len(stream), cut) for each in frames.feed(stream[start : start + cut])]
    assert came == sent


def test_all_values_go_over_whole() -> None:
    made = submission(1, recipients=("a@example.org", "b@example.org"), content=b"x" * 10)
    for value in (made, *made.deliveries, made.message, made.message.envelope):
        assert pickle.loads(pickle.dumps(value)) == value
    ended = Settle({(1, 0): verdict_row(delivered())}, event_rows(made.events), [pack(submission(2), in_file=False)], 1.0)
    for operation in (Accept(*pack(made, in_file=False), True), Open([(1, 0)], 1.0, SES, 10), ended):
        again = made_of(pickle.loads(pickle.dumps(plain(operation))))
        assert (type(again), again) == (type(operation), operation)


def test_the_writer_knows_neither_the_loop_nor_what_else_is_large() -> None:
    code = "import sys, sesrelay.spool.writer.child as _; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    operations = {path.stem for path in SPOOL.glob("*.py") if re.search(r"^def \w+\(\s*tx: Transaction", path.read_text(), re.M)}
    assert {"flow", "upkeep", "changing"} <= operations
    assert {f"sesrelay.spool.{name}" for name in operations} <= set(told)  # an upgrade may change their files under it
    assert not {"asyncio", "ssl", "uvloop", "aiosmtpd", "pydantic", "structlog", "logging"} & set(told)


async def test_it_inherits_its_socket_and_its_lock_and_nothing_else(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        writer = await rig.start()
        await writer.submit(partial(ADD, bindings=(1,)))
        kinds = [os.readlink(each) for each in Path(f"/proc/{rig.pid}/fd").iterdir()]
        await writer.close()
    assert sum(kind.startswith("socket:") for kind in kinds) == 1
    assert sum(kind.endswith("/lock") for kind in kinds) == 1
