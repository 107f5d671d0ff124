"""A verb meets a daemon: who is asked first, and what it takes for an answer."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_rig import Witness
from fakes import FakeClock
from sesrelay.app import operator
from sesrelay.config.model import Config
from sesrelay.control import client
from sesrelay.control.client import RemoteDesk
from sesrelay.control.desk import SpoolDesk
from sesrelay.control.question import ControlError, ask
from sesrelay.control.server import ControlServer
from sesrelay.listener import sockets
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
    monkeypatch.setattr(client, "ANSWER_TIME", 0.05)
    late = asyncio.Event()
    async with await serve(tmp_path / "c", b'{"end": null}\n', b'{"end": {"messages": 3}}\n', late=late):
        with pytest.raises(ControlError, match="does not answer"):
            await RemoteDesk.connect(tmp_path / "c", "/queue")  # or the late answer were taken for that to the next question
        config = Config.model_validate({"control": str(tmp_path / "c"), "state_dir": str(tmp_path)})
        with pytest.raises(operator.DaemonUnreachable, match="does not answer"):
            await operator.reach_daemon(config)
        late.set()


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
            with pytest.raises(ControlError, match="the daemon went away"):
                await desk.export("0000000000001")
    if b"\n" not in said:
        with dying(tmp_path / "d", said, reads=reads), pytest.raises(ControlError, match="the daemon went away"):
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
