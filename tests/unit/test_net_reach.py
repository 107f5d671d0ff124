"""Reaching one of several addresses: in order or staggered, and no socket left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from batches import unused_port
from sesrelay.transport.net import reach as net_reach
from sesrelay.transport.net.plainly import plainly
from sesrelay.transport.net.reach import Unreachable, interleaved, reach, resolve


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.2", 0)) as sock:
        yield sock


async def test_the_next_one_after_one_that_refuses(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    reached = await reach(["127.0.0.3", "127.0.0.2"], port, timeout=5.0, stagger=None)
    with closing(reached.sock):
        assert reached.address == "127.0.0.2"
        assert list(reached.failed) == ["127.0.0.3"]
        assert reached.sock.getpeername() == ("127.0.0.2", port)
        assert reached.sock.proto == socket.IPPROTO_TCP  # else asyncio leaves TCP_NODELAY off


@pytest.mark.parametrize("stagger", [None, 0.01])
async def test_nobody_answers(stagger: float | None) -> None:
    with pytest.raises(Unreachable, match="Connection refused") as caught:
        await reach(["127.0.0.3", "127.0.0.4"], unused_port(), timeout=5.0, stagger=stagger)
    assert list(caught.value.failed) == ["127.0.0.3", "127.0.0.4"]


async def test_a_source_address_that_is_not_ours_is_said(listening: socket.socket) -> None:
    with pytest.raises(Unreachable, match=r"cannot connect from 192\.0\.2\.1 \(source_address\): Cannot assign requested address"):
        await reach(["127.0.0.2"], listening.getsockname()[1], source="192.0.2.1", timeout=5.0)


async def slow_and_quick(monkeypatch: pytest.MonkeyPatch, stagger: float | None, timeout: float) -> tuple[str, list[str]]:
    """Reach for one that never answers and one that does; return who won, and what was begun and given up."""
    log: list[str] = []

    async def connect(address: str, _port: int, _source: str | None, seconds: float) -> socket.socket:
        log.append(address)
        try:
            async with asyncio.timeout(seconds):
                if address == "slow":
                    await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append("given up")
            raise
        return socket.socket()

    monkeypatch.setattr(net_reach, "_connect", connect)
    reached = await reach(["slow", "quick", "unused"], 25, timeout=timeout, stagger=stagger)
    reached.sock.close()
    await asyncio.sleep(0)
    return reached.address, log


async def test_a_slow_one_holds_nobody_up_where_families_race(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await slow_and_quick(monkeypatch, 0.01, 3600.0) == ("quick", ["slow", "quick", "given up"])


async def test_a_slow_one_has_its_time_where_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await slow_and_quick(monkeypatch, None, 0.02) == ("quick", ["slow", "quick"])


async def test_both_at_once_leave_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    gate = asyncio.Event()

    async def connect(_address: str, *_: object) -> socket.socket:
        await gate.wait()
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(net_reach, "_connect", connect)
    asyncio.get_running_loop().call_later(0.05, gate.set)
    reached = await reach(["a", "b"], 25, timeout=5.0, stagger=0.001)
    assert len(made) == 2
    assert [sock.fileno() >= 0 for sock in made].count(True) == 1
    reached.sock.close()


async def test_cancelling_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = asyncio.Event()

    async def connect(*_: object) -> socket.socket:
        try:
            await asyncio.sleep(3600)
        finally:
            given_up.set()
        raise AssertionError

    monkeypatch.setattr(net_reach, "_connect", connect)
    task = asyncio.create_task(reach(["a"], 25, timeout=5.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(given_up.wait(), 5)


def test_families_take_turns() -> None:
    assert interleaved(["1.1.1.1", "2.2.2.2", "3.3.3.3", "::1"]) == ["1.1.1.1", "::1", "2.2.2.2", "3.3.3.3"]
    assert interleaved(["::1", "::2", "1.1.1.1"]) == ["::1", "1.1.1.1", "::2"]
    assert interleaved([]) == []


def test_each_family_takes_turns_within() -> None:
    assert interleaved(["::1", "1.1.1.1", "2.2.2.2", "::2", "::3"], 1) == ["::2", "2.2.2.2", "::3", "1.1.1.1", "::1"]
    assert interleaved(["1.1.1.1", "2.2.2.2"], 3) == ["2.2.2.2", "1.1.1.1"]
    assert interleaved(["1.1.1.1"], 7) == ["1.1.1.1"]
    assert interleaved([], 1) == []


def test_a_failure_is_told_by_its_text_or_by_what_its_type_says() -> None:
    assert plainly(OSError("gone")) == "gone"
    assert plainly(TimeoutError()) == "no answer in time"
    assert plainly(TimeoutError("the proxy took too long")) == "the proxy took too long"
    assert plainly(MemoryError()) == "MemoryError"


async def test_names_are_resolved_for_the_family_of_the_source() -> None:
    assert await resolve("localhost", 25, "127.0.0.3") == ["127.0.0.1"]
    assert "127.0.0.1" in await resolve("127.0.0.1", 25)
