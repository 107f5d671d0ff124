"""A verb meets a daemon: who is asked first, and what it takes for an answer."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine_rig import Witness
from fakes import FakeClock
from sesrelay.app import operator
from sesrelay.cli import cli
from sesrelay.config.model import Config
from sesrelay.control import question
from sesrelay.control.client import RemoteDesk
from sesrelay.control.desk import SpoolDesk
from sesrelay.control.question import ControlError, NoAnswer, ask
from sesrelay.control.server import ControlServer
from sesrelay.listener import sockets
from sesrelay.seams import Filter
from sesrelay.spool.memory import MemorySpool


async def serve(path: Path, *answers: bytes, late: asyncio.Event | None = None) -> asyncio.Server:
    """Answer each line with the next of `answers`, the first of them not before `late`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for n, answer in enumerate(answers):
            if not await reader.readline():
                break
            if n == 0 and late is not None:
                await late.wait()
            writer.write(answer)
        writer.close()

    return await asyncio.start_unix_server(talk, path)


async def test_a_daemon_of_an_older_version_is_asked_all_the_same(tmp_path: Path) -> None:
    unknown = b'{"error": "the request is not understood: there is no verb \'here\'"}\n'
    server = await serve(tmp_path / "c", unknown, b'{"end": {"messages": 3}}\n')
    async with server, await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
        assert await desk.summary() == {"messages": 3}


async def test_a_daemon_that_does_not_answer_is_asked_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "QUIET", 0.05)
    late = asyncio.Event()
    async with await serve(tmp_path / "c", b'{"end": null}\n', b'{"end": {"messages": 3}}\n', late=late):
        with pytest.raises(ControlError, match="does not answer"):
            await RemoteDesk.connect(tmp_path / "c", "/queue")  # or the late answer were taken for that to the next question
        config = Config.model_validate({"control": str(tmp_path / "c"), "state_dir": str(tmp_path)})
        with pytest.raises(NoAnswer, match="does not answer"):
            await operator.reach_daemon(config)
        late.set()


@pytest.mark.parametrize("end", [b'{"end": null}', b'{"error": "the queue cannot be reached"}'])
async def test_what_is_left_of_a_listing_is_no_answer_to_the_next_question(tmp_path: Path, end: bytes) -> None:
    items = b"".join(b'{"item": {"id": "%d"}}\n' % n for n in range(9)) + end + b"\n"
    server = await serve(tmp_path / "c", items, items, b'{"end": {"messages": 3}}\n', b'{"end": 1}\n')
    async with server, await RemoteDesk.connect(tmp_path / "c") as desk:
        for _ in range(2):
            async for one in desk.listing(Filter()):
                assert one == {"id": "0"}
                break
        assert await desk.summary() == {"messages": 3}
        assert await desk.change("delete", Filter(sender="a@example.com")) == 1


@pytest.mark.parametrize("content", [False, True])
async def test_a_daemon_that_is_at_work_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bool) -> None:
    monkeypatch.setattr(question, "QUIET", 0.05)
    end = b'{"end": {"id": "1"}, "octets": 3}\n' if content else b'{"end": {"id": "1"}}\n'
    looked, done = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            if b"here" in line:
                writer.write(b'{"end": null}\n')
                if done.is_set():  # by now it asks again, on a connection of its own
                    looked.set()
                continue
            done.set()
            writer.write(end[:20])
            await looked.wait()
            writer.write(end[20:])
            if content:
                looked.clear()
                await looked.wait()
                writer.write(b"abc")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "c"):
        async with await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
            assert await asyncio.wait_for(desk.export("1"), 20) == ({"id": "1"}, b"abc" if content else None)
        looked.clear()
        if not content:
            assert await asyncio.wait_for(asyncio.to_thread(ask, tmp_path / "c", "/queue", "reload"), 20) == {"id": "1"}


@pytest.mark.parametrize("said", [b"", b'{"end": {"id": "1"}, "octets": 9}\nabc'])
async def test_a_daemon_that_stops_in_its_answer_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:  # the connection that looks why is taken by nobody
        listening.bind(str(tmp_path / "c"))
        listening.listen()

        def talk() -> socket.socket:
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.sendall(b'{"end": null}\n' + said)
            return connection

        talking = asyncio.create_task(asyncio.to_thread(talk))
        async with await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
            connection = await talking
            monkeypatch.setattr(question, "QUIET", 0.05)
            with connection, pytest.raises(NoAnswer, match=rf"\(process {os.getpid()}\) does not answer"):
                await asyncio.wait_for(desk.export("1"), 20)


async def test_what_lives_and_never_does_it_is_left_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "QUIET", 0.05)
    monkeypatch.setattr(question, "WORK_TIME", 0.1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(b'{"end": null}\n' if b"here" in line else b"")
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "c"):
        async with await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
            with pytest.raises(ControlError, match="the daemon is running, but"):
                await desk.summary()
        with pytest.raises(ControlError, match="the daemon is running, but"):
            await asyncio.to_thread(ask, tmp_path / "c", "/queue", "reload")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The configuration of a daemon whose process stands still: the kernel takes connections, and nobody reads."""
    monkeypatch.setattr(question, "QUIET", 0.05)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\ncontrol: {tmp_path}/c\nhostname: a.example\n"
        'listeners: [{listen: "127.0.0.1:0"}]\ntransports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}\n'
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "c"))
        listening.listen()
        yield config


SAID = f"the daemon (process {os.getpid()}) does not answer within 0s; "


@pytest.mark.parametrize(
    "verb",
    ["queue summary", "queue list", "queue retry --state held", "trace x", "send --from a@a.example --to b@b.example", "reload"],
)
def test_every_verb_says_that_the_daemon_does_not_answer(verb: str, stopped: Path) -> None:
    done = CliRunner().invoke(cli, [*verb.split(), "--config", str(stopped)])
    assert (done.exit_code, done.stdout) == (75, "")
    assert done.stderr.startswith(f"sesrelay: {SAID}") and f"kill -CONT {os.getpid()}" in done.stderr


@pytest.mark.parametrize("verb", ["summary", "reload"])
def test_one_silence_is_enough(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "QUIET", 0.05)
    monkeypatch.setattr(question, "silent", lambda path, looks: pytest.fail("it waits a second time"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "c"))
        listening.listen()
        with pytest.raises(NoAnswer, match=rf"\(process {os.getpid()}\) does not answer"):
            ask(tmp_path / "c", "/queue", verb)


def test_a_site_is_written_for_a_daemon_that_does_not_answer(stopped: Path) -> None:
    done = CliRunner().invoke(
        cli, ["site", "add", "blog", "--domain", "b.example", "--transport", "nowhere", "--config", str(stopped)]
    )
    assert done.exit_code == 75 and f"the change is saved, but {SAID}" in done.stderr
    assert f"when it answers: sesrelay reload --config {stopped}" in done.stderr


def test_doctor_tells_of_a_daemon_that_does_not_answer_and_goes_on(stopped: Path) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--json", "--config", str(stopped)])
    checks = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert (done.exit_code, checks["relay"]["status"], checks["disk"]["status"]) == (1, "fail", "ok")
    assert "does not answer" in checks["relay"]["message"] and "kill -CONT" in checks["relay"]["remedy"]


def test_a_daemon_that_takes_no_connection_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "QUIET", 0.05)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(tmp_path / "c"))
        listening.listen(0)
        first.connect(str(tmp_path / "c"))
        with pytest.raises(NoAnswer, match=r"^the daemon does not answer"):
            ask(tmp_path / "c", "/queue", "summary")
        with pytest.raises(NoAnswer, match=r"^the daemon does not answer"):
            asyncio.run(RemoteDesk.connect(tmp_path / "c", "/queue"))


@contextmanager
def dying(path: Path, said: bytes, *, reads: bool) -> Iterator[None]:
    """Be a daemon that dies after `said`; what it has not read by then is a reset for who asked."""

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            select.select([connection], [], [])
            if reads:
                connection.recv(1 << 16)
            connection.sendall(said)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("said", [b"", b'{"end": {"messa', b'{"end": null, "octets": 9}\nabc'])
@pytest.mark.parametrize("reads", [True, False])
async def test_a_daemon_that_dies_in_its_answer_is_a_control_error(said: bytes, reads: bool, tmp_path: Path) -> None:
    with dying(tmp_path / "c", said, reads=reads):
        async with await RemoteDesk.connect(tmp_path / "c") as desk:
            with pytest.raises(ControlError, match="the connection to the daemon was lost"):
                await desk.export("0000000000001")
    if b"\n" not in said:
        with dying(tmp_path / "d", said, reads=reads), pytest.raises(ControlError, match="the connection to the daemon was lost"):
            await asyncio.to_thread(ask, tmp_path / "d", "/queue", "summary")


async def test_a_fault_of_ours_is_an_answer_and_no_silence(tmp_path: Path) -> None:
    witness, spool = Witness(), MemorySpool()

    async def fail(*_: object) -> None:
        raise OverflowError("int too big to convert")

    spool.show = fail  # type: ignore[assignment, method-assign]
    control = ControlServer("/queue", SpoolDesk(spool, FakeClock()), witness, dict, lambda: asyncio.sleep(0, {}))
    sock = sockets.bind_unix(str(tmp_path / "c"), "c")
    await control.serve(sock)
    async with await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
        with pytest.raises(ControlError, match="the daemon failed"):
            await desk.show("0000000000001")
        assert (await desk.summary())["messages"] == 0, "and the connection goes on"
    control.stop()
    assert [str(error) for _, _, error in witness.events("trouble")] == ["int too big to convert"]
