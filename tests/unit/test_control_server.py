"""What a daemon lets strangers do at its control socket: it keeps descriptors and memory for mail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine_rig import Witness
from fakes import FakeClock
from sesrelay.control import server as serving
from sesrelay.control import wire
from sesrelay.control.client import RemoteDesk
from sesrelay.control.desk import SpoolDesk
from sesrelay.control.server import MOST, SHORT, ControlServer
from sesrelay.listener import sockets
from sesrelay.seams import Document, Filter
from sesrelay.spool.memory import MemorySpool

HERE = b'{"verb":"here"}\n'
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serve(path: Path, reload: Callable[[], Awaitable[Document]] = lambda: asyncio.sleep(0, {})) -> AsyncIterator[Witness]:
    witness = Witness()
    control = ControlServer("/queue", SpoolDesk(MemorySpool(), FakeClock()), witness, dict, reload)
    await control.serve(sockets.bind_unix(str(path), "c"))
    try:
        yield witness
    finally:
        control.stop()


async def answered(ends: Ends) -> bool:
    """Ask whether anybody is there, over a connection that exists."""
    ends[1].write(HERE)
    try:
        return await asyncio.wait_for(ends[0].readline(), 10) == b'{"end":null}\n'
    except ConnectionError:
        return False


async def test_a_new_connection_is_answered_and_the_one_that_was_quiet_for_longest_goes(tmp_path: Path) -> None:
    async with serve(tmp_path / "c"):
        many = [await asyncio.open_unix_connection(tmp_path / "c") for _ in range(MOST)]
        for one in many:
            assert await answered(one)
        assert await answered(many[0])
        new = [await asyncio.open_unix_connection(tmp_path / "c") for _ in range(3)]
        assert [await answered(one) for one in new] == [True] * 3
        assert [n for n, one in enumerate(many) if not await answered(one)] == [1, 2, 3]
        for _, writer in (*many, *new):
            writer.close()


async def test_who_waits_for_an_answer_does_not_go_for_those_who_say_nothing(tmp_path: Path) -> None:
    """A change of a million deliveries takes minutes, in which a script may leave a connection open every few seconds."""
    begun, done = asyncio.Event(), asyncio.Event()

    async def reload() -> dict[str, bool]:
        begun.set()
        await done.wait()
        return {"ok": True}

    async with serve(tmp_path / "c", reload), await RemoteDesk.connect(tmp_path / "c") as desk:
        waiting = asyncio.ensure_future(desk.call("reload"))
        await begun.wait()
        many = [await asyncio.open_unix_connection(tmp_path / "c") for _ in range(2 * MOST)]
        assert await answered(many[-1])
        done.set()
        assert await waiting == {"ok": True}
        for _, writer in many:
            writer.close()


async def test_who_has_left_makes_room(tmp_path: Path) -> None:
    async with serve(tmp_path / "c"):
        first = await asyncio.open_unix_connection(tmp_path / "c")
        for _ in range(2 * MOST):
            other = await asyncio.open_unix_connection(tmp_path / "c")
            assert await answered(other)
            other[1].close()
            assert await other[0].read() == b""
        assert await answered(first)
        first[1].close()


async def test_a_request_that_names_many_messages_is_answered_and_so_is_the_next_one(tmp_path: Path) -> None:
    many = Filter(ids=tuple(f"{n:013}" for n in range(100_000)))
    async with serve(tmp_path / "c"), await RemoteDesk.connect(tmp_path / "c", "/queue") as desk:
        for _ in range(2):
            assert await desk.change("hold", many) == 0
            assert (await desk.summary())["messages"] == 0


async def test_a_line_without_an_end_is_cut_off_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serve(tmp_path / "c") as witness:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "c")
        with pytest.raises(ConnectionError):
            for _ in range(wire.LINE_MAX // SHORT + 64):
                writer.write(b"x" * SHORT)
                await writer.drain()
            await reader.readexactly(1)
        assert len(witness.events("notice")) == 1
        other = await asyncio.open_unix_connection(tmp_path / "c")
        assert await answered(other)
        other[1].close()


@pytest.mark.parametrize("begun", [b"x" * (4 * SHORT), b'{"verb":"here","octets":%d}\n' % (2 * SHORT)])
async def test_one_large_request_is_read_at_a_time_and_not_for_ever(
    begun: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PATIENCE", 0.5)
    async with serve(tmp_path / "c"), await RemoteDesk.connect(tmp_path / "c") as desk:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "c")
        writer.write(begun)
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(desk.change("hold", Filter(ids=tuple(f"{n:013}" for n in range(10_000)))))
        other = await asyncio.open_unix_connection(tmp_path / "c")
        assert await answered(other), "small requests do not wait"
        assert not waiting.done()
        assert await waiting == 0
        assert await reader.read() == b"", "who did not send it all is gone"
        writer.close()
        other[1].close()
