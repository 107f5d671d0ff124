"""The maildrop: several files are on their way at once, so many and no more; what is no message is told of by few words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes import FakeClock
from loops import LOOPS
from sesrelay.listener.maildrop import ABREAST, SMALL, Maildrop
from sesrelay.mail.reply import Reply
from transcripts.listener_rig import RecordingIntake, Rig, options, rig, run


class Turnstile:
    """Lets nobody through until `wanted` are there, or for ten seconds."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.inside, self.most = wanted, 0, 0
        self.open = asyncio.Event()

    async def answer(self) -> Reply:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self.wanted:
            self.open.set()
        asyncio.get_running_loop().call_later(10.0, self.open.set)
        await self.open.wait()
        await asyncio.sleep(0.02)  # for one too many, if there is one, to come
        self.inside -= 1
        return Reply(250, "2.0.0", "Ok: queued as 0123456789AB")


def drop(folder: Path, count: int, size: int = 10) -> None:
    for n in range(count):
        text = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<n%d@example.org>\r\nDATA\r\nA: b\r\n\r\n%b\r\n.\r\n"
        (folder / f"{n}-x").write_bytes(text % (n, (b"x" * 70 + b"\r\n") * (size // 72)))


async def look(folder: Path, relay: Rig) -> None:
    async def none(*_: str) -> list[str]:
        return []

    await Maildrop(relay.server, lambda: folder, none, FakeClock()).look()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("limits", "size", "abreast"), [
    ({}, 10, ABREAST),
    ({"connections": 20}, 10, 5),  # clients are to find room, too
    ({"connections_per_client": 12}, 10, 3),
    ({"connections": 3}, 10, 1),
    ({}, SMALL + 2**20 + 1, 1),  # of what takes much memory
])  # fmt: skip
def test_so_many_files_are_on_their_way_at_once(tmp_path: Path, loop: str, limits: dict[str, int], size: int, abreast: int) -> None:
    async def main() -> None:
        gate = Turnstile(abreast)
        async with rig(options(message_size=2**24, **limits), RecordingIntake(answer=gate.answer)) as relay:
            drop(tmp_path, 2 * abreast + 1, size)
            await look(tmp_path, relay)
            assert gate.most == abreast
            assert sorted(one[0].recipients[0].address for one in relay.intake.taken) == sorted(
                f"n{n}@example.org" for n in range(2 * abreast + 1)
            )
            assert list(tmp_path.iterdir()) == []

    run(loop, main())


def test_what_cannot_be_moved_is_told_of_in_the_same_words(tmp_path: Path) -> None:
    """By its words the log counts what it does not show; a name among them would make each a kind of its own."""

    async def main() -> None:
        for n in range(2):
            (tmp_path / f"{n}-folder").mkdir()
            (tmp_path / f"bad/{n}-folder/full").mkdir(parents=True)
        async with rig() as relay:
            await look(tmp_path, relay)
            assert len(relay.observer.words) == 2
            assert len(set(relay.observer.words)) == 1
            assert all(isinstance(trouble, OSError) for trouble in relay.observer.troubles)

    run("uvloop", main())
