"""A filter said in SQL means what it means asked of each delivery, whatever is in it, and on pages of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import cycle, product
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from sesrelay.mail import queue_id
from sesrelay.mail.delivery import DeliveryId, State
from sesrelay.seams import DeliveryRecord, Filter, Verb
from sesrelay.spool import selecting
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.sqlite import SqliteSpool
from spool_world import MX, NOW, SES, delivered, failed, opened, settlement, submission

T = TypeVar("T")

SENDERS = [
    "", "Ann@Example.com", "ann@sub.example.com", "ann@bücher.example", '"a b"@example.com', "a%b_c@example.com", "é@example.com",
    "É@Example.org", "a*b@example.com", "postmaster@example.com.example.org",
]  # fmt: skip
RECIPIENTS = [
    ["bob@example.org"], ["Bob@BÜCHER.example", "carol@example.net", "bob@example.org"], ["x@notexample.org"], ["[a]?*@example.org"],
    ["straße@straße.example", "%@example.net"],
]  # fmt: skip
STATES = [State.QUEUED, State.HELD, State.IN_FLIGHT, State.DELIVERED, State.FAILED]
ADDRESSES = [*filter(None, SENDERS), *(each for some in RECIPIENTS for each in some)]
DOMAINS = sorted({each.rpartition("@")[2] for each in ADDRESSES})

patterns = st.one_of(
    st.sampled_from([*ADDRESSES, *(each.upper() for each in ADDRESSES)]),
    st.builds("{}@{}".format, st.sampled_from(["", "*"]), st.sampled_from([*DOMAINS, *(each.upper() for each in DOMAINS)])),
    st.builds("{}@{}".format, st.sampled_from(["%", "a*", "?", "ann", ""]), st.sampled_from(DOMAINS)),
    st.sampled_from(
        ["", "<>", "*", "@", "*@", "example.org", "*@no domain", "*@.", "*@example.org.", "b\udcffd@x", "*@\udcff", "a\0b"]
    ),
    st.text(max_size=6),
)


def seldom(what: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    """Most filters name little: a few that name all would match nothing."""
    return st.one_of(st.none(), st.none(), what)


filters = st.builds(
    Filter,
    ids=st.one_of(
        st.just(()),
        st.just(()),
        st.lists(st.one_of(st.integers(1, 60), st.sampled_from(["", "nonsense", "zzzzzzzzzzzzz", "0000000000000"])), max_size=4)
        .map(lambda some: tuple(each if isinstance(each, str) else queue_id.new(NOW + each, each) for each in some)),
    ),
    states=st.lists(st.sampled_from(list(State)), max_size=3).map(tuple),
    sender=seldom(patterns),
    recipient=seldom(patterns),
    transport=st.sampled_from([None, None, "ses", "direct", "absent", "", "\udcff"]),
    older_than=seldom(st.integers(40, 130).map(float)),
)  # fmt: skip


class Both:
    """The same mail in both stores: each sender with each list of recipients, in all states."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.memory = MemorySpool(FakeClock(NOW + 100))
        self.sqlite = self.loop.run_until_complete(opened(folder, FakeClock(NOW + 100)))
        self.loop.run_until_complete(self._fill())

    async def _fill(self) -> None:
        states, lanes = cycle(STATES), cycle([SES, MX, SES])
        for serial, (sender, recipients) in enumerate(product(SENDERS, RECIPIENTS), 1):
            state = next(states)
            first = State.IN_FLIGHT if state.final else state
            # Out of step with the ids now and then, as after a jump of the clock.
            accepted = NOW + serial - (30 if serial % 7 == 0 else 0)
            made = submission(serial, sender=sender, recipients=recipients, state=first, lane=next(lanes), accepted=accepted)
            for store in (self.memory, self.sqlite):
                await store.accept(made)
                if state.final:
                    await store.settle(settlement(made, delivered() if state is State.DELIVERED else failed()))
            await asyncio.sleep(0)

    def listed(self, store: SqliteSpool | MemorySpool, filter: Filter, limit: int) -> list[DeliveryRecord]:
        async def all_pages() -> list[DeliveryRecord]:
            found: list[DeliveryRecord] = []
            after: DeliveryId | None = None
            while page := await store.list(filter, NOW + 100, after, limit):
                found += page
                after = page[-1].delivery.id
            return found

        return self.loop.run_until_complete(all_pages())

    def change(self, verb: Verb, filter: Filter, now: float) -> list[int]:
        return [self.loop.run_until_complete(store.change(verb, filter, now)) for store in (self.memory, self.sqlite)]

    def close(self) -> None:
        self.loop.run_until_complete(self.sqlite.close())
        self.loop.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    both = Both(tmp_path_factory.mktemp("selection"))
    yield both
    both.close()


@settings(max_examples=300, deadline=None)
@given(filter=filters, limit=st.sampled_from([1, 3, 1_000]), scan=st.sampled_from([(1, 4), (5, 20), (1_000, 32_000)]))
def test_what_a_filter_lists(both: Both, filter: Filter, limit: int, scan: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selecting, "SCAN_FIRST", scan[0])
        patch.setattr(selecting, "SCAN", scan[1])
        found = both.listed(both.sqlite, filter, limit)
    assert found == both.listed(both.memory, filter, 1_000)


@settings(max_examples=120, deadline=None)
@given(verb=st.sampled_from(["hold", "release", "retry"]), filter=filters, n=st.integers(200, 900))
def test_what_a_filter_changes(both: Both, verb: Verb, filter: Filter, n: int) -> None:
    before = both.listed(both.memory, Filter(states=tuple(State)), 1_000)
    assert before == both.listed(both.sqlite, Filter(states=tuple(State)), 1_000)
    ours, theirs = both.change(verb, filter, NOW + n)
    assert ours == theirs
    assert both.loop.run_until_complete(both.memory.stats()) == both.loop.run_until_complete(both.sqlite.stats())
