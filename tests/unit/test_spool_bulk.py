"""What goes into the store in one group is what would have gone in one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import State
from sesrelay.mail.envelope import Recipient
from sesrelay.mail.trace import Event
from sesrelay.seams import Filter, Opened, Settlement, SpoolError, Submission, Verb
from sesrelay.spool.bulk import Open
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.spool.writer.committing import ALONG_MAX
from spool_world import MX, NOW, SES, deferred, delivered, failed, held, ids, opened, submission

TABLES = ("message", "content", "delivery", "event", "backlog", "total")
MANY = 85  # more than the largest statement takes


def tables(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    db = apsw.Connection(str(folder / "queue.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {
            name: sorted((row for row in db.execute(f"SELECT * FROM {name}").fetchall() if name != "backlog" or row[-1]), key=repr)
            for name in TABLES
        }
    finally:
        db.close()


async def in_turn(calls: list[Awaitable[object]]) -> list[object]:
    return [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]


async def at_once(calls: list[Awaitable[object]]) -> list[object]:
    return list(await asyncio.gather(*calls, return_exceptions=True))


def made(chance: Random) -> list[Submission]:
    lanes, states = (SES, MX), (State.QUEUED, State.QUEUED, State.IN_FLIGHT)
    return [
        submission(
            serial,
            recipients=[Recipient(f"r{n}@example.org") for n in range(chance.choice((1, 1, 1, 3)))],
            lane=chance.choice(lanes),
            state=chance.choice(states),
            content=b"Subject: x\r\n\r\n" + b"y" * chance.choice((10, 5_000)) + b"\r\n",
            message_id=f"<{serial}@example.com>",
        )
        for serial in range(1, MANY + 1)
    ]


def settlement(one: Submission, chance: Random) -> Settlement:
    verdicts = {each: chance.choice((delivered(), delivered(), deferred(), failed(), held())) for each in ids(one)}
    report = submission(1_000 + chance.randrange(10**6), sender="", report=True)
    return Settlement(verdicts, (Event(NOW, "attempt", "to"),), (report,) if chance.random() < 0.1 else ())


async def live(store: SqliteSpool, run: Any, seed: int) -> list[list[object]]:
    """Accept, open and settle, for every other seed with an operator's changes in between; return what the store said.

    After a change of an operator's, memory knows nothing of how deliveries stand.
    """
    chance, answers = Random(seed), []
    mail = made(chance)

    async def change(verb: Verb, *those: int) -> list[object]:
        wanted = Filter(ids=tuple(mail[n].message.id for n in those))
        return [await store.change(verb, wanted, NOW)] if seed % 2 else []

    answers.append(await run([store.accept(one, claimed=True) for one in mail]))
    queued = [one for one in mail if one.deliveries[0].state is State.QUEUED]
    answers.append(await change("hold", 0, 5))
    answers.append(
        await run(
            [
                store.open_attempt(ids(one), NOW + 60, chance.choice((None, MX)), read=chance.choice((None, one.message.size, 1)))
                for one in queued
            ]
        )
    )
    answers.append(await change("retry", 3))
    answers.append(await change("delete", 7))
    answers.append(await run([store.settle(settlement(one, chance)) for one in mail]))
    answers.append(await run([store.accept(one) for one in mail[:2]]))
    return answers


@pytest.mark.parametrize("seed", range(5))
async def test_a_group_leaves_what_its_operations_would_have_left(tmp_path: Path, seed: int) -> None:
    said = {}
    for name, run in (("turn", in_turn), ("once", at_once)):
        store = await opened(tmp_path / name, FakeClock(NOW + 100))
        said[name] = await live(store, run, seed)
        stats = await store.stats()
        await store.close()
        said[name].append([stats.messages, stats.bytes, dict(stats.counts)])
    assert [[_plain(each) for each in part] for part in said["once"]] == [[_plain(each) for each in part] for part in said["turn"]]
    left = tables(tmp_path / "once")
    assert left == tables(tmp_path / "turn")
    assert {row[0] for row in left["content"]} == {row[0] for row in left["delivery"] if row[2] < 3}, (
        "what has ended has no content"
    )


async def test_a_queue_id_that_is_taken_fails_its_message_only(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    mail = [submission(serial) for serial in range(1, 10)]
    await store.accept(mail[4])
    results = await at_once([store.accept(one) for one in mail])
    assert [type(result) for result in results] == [SpoolError if one is mail[4] else type(None) for one in mail]
    assert (await store.stats()).messages == 9
    await store.close()


async def test_a_group_brings_no_more_content_along_than_its_callers_would_wait_for(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    size = ALONG_MAX // 16
    mail = [submission(serial, content=b"y" * size) for serial in range(1, 35)]
    await at_once([store.accept(one) for one in mail])
    results: list[Opened] = await at_once([store.open_attempt(ids(one), NOW + 60, read=size) for one in mail])  # type: ignore[assignment]
    assert [each.ids for each in results] == [frozenset(ids(one)) for one in mail]
    along = [each.content for each in results if each.content is not None]
    assert 16 <= len(along) < 34
    assert set(along) == {mail[0].content}
    await store.close()


async def test_no_error_in_what_comes_along_fails_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def content(_opening: Open, _cursor: apsw.Cursor) -> bytes:
        raise MemoryError

    told: list[object] = []
    monkeypatch.setattr(Open, "content", content)
    store = await opened(tmp_path, on_trouble=lambda what, error: told.append(error))
    made, other = submission(1), submission(2)
    await store.accept(made)
    results = await at_once([store.open_attempt(ids(made), NOW + 60, read=made.message.size), store.accept(other)])
    assert results == [Opened(frozenset(ids(made))), None]
    assert [type(error) for error in told] == [MemoryError]
    assert [each.id for each in await store.open_attempts(9)] == ids(made)
    assert await store.content(made.message.id) == made.content
    await store.close()


async def test_content_of_another_kind_than_octets_does_not_come_along(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    made = submission(1, content=b"Subject: x\r\n\r\nplain\r\n")
    await store.accept(made)
    await store.close()
    db = apsw.Connection(str(tmp_path / "queue.db"))
    db.execute("UPDATE content SET body = CAST(body AS TEXT)")
    db.close()
    store = await opened(tmp_path)
    assert await store.open_attempt(ids(made), NOW + 60, read=made.message.size) == Opened(frozenset(ids(made)))
    await store.close()


def _plain(answer: object) -> object:
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, Exception) else answer
