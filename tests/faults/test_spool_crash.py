"""SIGKILL at any moment loses nothing that was acknowledged, and an acknowledgement waits for the sync."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import peers
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter
from sesrelay.spool.files import THRESHOLD
from spool_world import NOW, opened
from traces import completed, strace

TESTS = Path(__file__).parents[1]

CHILD = f"""
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from spool_world import delivered, opened, settlement, submission
from sesrelay.mail.delivery import State

async def main(state, first, count):
    spool = await opened(Path(state))
    serials = iter(range(first, first + count))
    async def client():
        for serial in serials:
            size = {THRESHOLD + 1} if serial % 50 == 7 else 4096
            made = submission(serial, content=b"x" * size, state=State.IN_FLIGHT if serial % 2 else State.QUEUED)
            await spool.accept(made)
            os.write(1, b"accepted %s\\n" % made.message.id.encode())
            if serial % 2 and serial % 50 != 7:
                await spool.settle(settlement(made, delivered()))
                os.write(1, b"settled %s\\n" % made.message.id.encode())
    await asyncio.gather(*(client() for _ in range(10)))
    await spool.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def start(*command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)


async def test_what_was_acknowledged_is_there_after_sigkill(tmp_path: Path) -> None:
    chance = random.Random(4711)
    accepted: set[str] = set()
    settled: set[str] = set()
    for life in range(6):
        child = start(sys.executable, "-c", CHILD, str(tmp_path), str(life * 100_000), "100000")
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        assert lines[0], "the child died before its first message"
        time.sleep(chance.uniform(0.0, 0.15))
        child.kill()
        lines += child.communicate()[0].splitlines(keepends=True)
        for line in lines:
            if line.endswith(b"\n"):
                what, name = line.decode().split()
                (accepted if what == "accepted" else settled).add(name)
    spool = await opened(tmp_path)
    everything = {each.delivery.id.message: each for each in await spool.list(Filter(states=tuple(State)), NOW, None, 10**6)}
    assert accepted <= set(everything)
    assert {everything[name].delivery.state for name in settled} <= {State.DELIVERED}
    still_open = [name for name, each in everything.items() if not each.delivery.state.final]
    for name in still_open:
        assert len(await spool.content(name)) in (4096, THRESHOLD + 1)
    stats = await spool.stats()
    assert stats.messages == len(still_open) == sum(stats.counts.values())
    assert {path.name for path in (tmp_path / "bodies").iterdir()} <= set(still_open)
    await spool.close()


def test_each_acknowledgement_follows_its_own_sync(tmp_path: Path) -> None:
    tracer = strace()
    trace = tmp_path / "trace"
    one_client = CHILD.replace("range(10)", "range(1)")
    command = tracer.command(
        "-f", "-y", "-o", trace, "-e", "trace=write,pwrite64,fsync,fdatasync", sys.executable, "-c", one_client
    )
    child = start(*command, str(tmp_path / "state"), "0", "10", env=tracer.env)  # serial 7 is large, and a file
    out = child.communicate()[0]
    if child.returncode and not out:
        peers.missing("tracing is not allowed here")
    assert out.count(b"accepted") == 10
    body = folder = written = synced = False
    told = bodies = 0
    for call in completed(trace):
        if re.match(r"write\(\d+<[^>]*/bodies/", call):
            body, folder, bodies = False, False, bodies + 1
        elif re.match(r"fsync\(\d+<[^>]*/bodies/[^>]+>\) += 0", call):
            body = True
        elif re.match(r"fsync\(\d+<[^>]*/bodies>\) += 0", call):
            folder = body
        elif re.match(r"pwrite64\(\d+<[^>]*/queue\.db-wal>", call):
            assert folder or not bodies, "the commit began before the body was synced"
            written, synced = True, False
        elif re.match(r"f(data)?sync\(\d+<[^>]*/queue\.db-wal>\) += 0", call):
            synced = True
        elif re.match(r'write\(1<.*"(accepted|settled) ', call):
            assert written
            assert synced, f"told before the sync: {call}"
            written = synced = False
            told += 1
    assert told == out.count(b"\n")
    assert bodies
