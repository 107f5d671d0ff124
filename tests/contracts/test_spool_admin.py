"""What `seams.SpoolAdmin` promises, held by the store on SQLite and by the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import DeliveryId, Priority, State
from sesrelay.mail.envelope import Origin
from sesrelay.seams import Filter, Settlement, SpoolError, Stats, Submission
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.sqlite import SqliteSpool
from spool_world import BODY, MX, NOW, SES, deferred, delivered, failed, held, ids, opened, settlement, submission

Store = SqliteSpool | MemorySpool
LATER = NOW + 5_000.0  # the store's own time


@pytest.fixture(params=["sqlite", "memory"])
async def spool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    clock = FakeClock(LATER)
    store = MemorySpool(clock) if request.param == "memory" else await opened(tmp_path / "state", clock)
    yield store
    await store.close()


async def filled(spool: Store) -> dict[int, str]:
    """Accept six messages, and return their queue ids."""
    made = {
        1: submission(1, sender="Ann@Example.com", recipients=["bob@example.org"]),
        2: submission(2, sender="ann@sub.example.com", recipients=["Bob@BÜCHER.example", "carol@example.net"], lane=MX),
        3: submission(3, sender="", recipients=["eve@notexample.org"], state=State.HELD),
        4: submission(4, sender="ann@bücher.example", state=State.IN_FLIGHT),
        5: submission(5, recipients=["dan@example.org"], state=State.IN_FLIGHT, lane=MX),
        6: submission(6, state=State.IN_FLIGHT),
    }
    for each in made.values():
        await spool.accept(each)
    await spool.settle(settlement(made[5], delivered("ses-5")))
    await spool.settle(settlement(made[6], failed()))
    return {serial: each.message.id for serial, each in made.items()}


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        (Filter(), [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]),
        (Filter(states=(State.DELIVERED,)), [(5, 0)]),
        (Filter(states=(State.FAILED, State.HELD)), [(3, 0), (6, 0)]),
        (Filter(states=tuple(State)), [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0), (5, 0), (6, 0)]),
        (Filter(states=(State.IN_FLIGHT,)), [(4, 0)]),
        (Filter(sender="ANN@example.COM"), [(1, 0)]),
        (Filter(sender="*@example.com"), [(1, 0)]),
        (Filter(sender="@EXAMPLE.com"), [(1, 0)]),
        (Filter(sender="*@bücher.example"), [(4, 0)]),
        (Filter(sender="@xn--bcher-kva.example"), [(4, 0)]),
        (Filter(sender="<>"), [(3, 0)]),
        (Filter(sender=""), [(3, 0)]),
        (Filter(recipient="*@example.org"), [(1, 0), (4, 0)]),
        (Filter(recipient="bob@xn--bcher-kva.EXAMPLE"), [(2, 0)]),
        (Filter(recipient="*@no domain"), []),
        (Filter(recipient="example.org"), []),
        (Filter(transport="direct"), [(2, 0), (2, 1)]),
        (Filter(transport="direct", states=(State.DELIVERED,)), [(5, 0)]),
        (Filter(transport="absent"), []),
        (Filter(older_than=7.0), [(1, 0), (2, 0), (2, 1), (3, 0)]),
        (Filter(older_than=7.5), [(1, 0), (2, 0), (2, 1)]),
        (Filter(sender="@example.com", recipient="@example.net"), []),
    ],
)
async def test_a_filter_lists_oldest_first_in_pages_of_any_size(
    spool: Store, filter: Filter, wanted: list[tuple[int, int]]
) -> None:
    names = await filled(spool)
    expected = [DeliveryId(names[serial], n) for serial, n in wanted]
    for limit in (1, 2, 100):
        seen: list[DeliveryId] = []
        while page := await spool.list(filter, NOW + 10, seen[-1] if seen else None, limit):
            assert len(page) <= limit
            seen += [each.delivery.id for each in page]
        assert seen == expected


async def test_ids_list_what_is_open_of_those_messages(spool: Store) -> None:
    names = await filled(spool)
    some = (names[6], names[4], names[2], names[2], "nonsense", "0000000000000")

    async def listed(filter: Filter, after: DeliveryId | None = None, limit: int = 9) -> list[DeliveryId]:
        return [each.delivery.id for each in await spool.list(filter, NOW, after, limit)]

    wanted = [DeliveryId(names[2], 0), DeliveryId(names[2], 1), DeliveryId(names[4], 0)]
    assert await listed(Filter(ids=some)) == wanted
    assert await listed(Filter(ids=some), wanted[0], 1) == [wanted[1]]
    assert await listed(Filter(ids=some, states=(State.FAILED,))) == [DeliveryId(names[6], 0)]
    assert await listed(Filter(ids=("nonsense",))) == []


@pytest.mark.parametrize("text", ["8000000000000", "subscriptions", "v" * 13])
async def test_what_is_larger_than_any_queue_id_is_none(spool: Store, text: str) -> None:
    await spool.accept(submission(1))
    assert await spool.show(text) is None
    assert await spool.find(text) == []
    assert await spool.list(Filter(ids=(text,)), NOW, None, 10) == []
    assert await spool.change("delete", Filter(ids=(text,)), NOW) == 0
    with pytest.raises(SpoolError):
        await spool.content(text)


async def test_greetings_are_those_of_one_message_id_and_one_listener(spool: Store) -> None:
    def said(serial: int, helo: str, message_id: str = "<same@x.example>", listener: str = "maildrop") -> Submission:
        made = submission(serial, message_id=message_id)
        message = replace(made.message, origin=Origin(listener, "", helo))
        return replace(made, message=message, deliveries=tuple(replace(each, message=message) for each in made.deliveries))

    for serial, each in enumerate(
        [
            ("f1.d.0-1",), ("f1.d.2-3",), ("f1.e.0-1",), ("xf1.d.0-1",), ('"\\ü',), ("f1.d.0-7", "<other@x.example>"), ("f1.d.0-9", ""),
            ("f1.d.0-f", "<same@x.example>", "127.0.0.1:25"),
        ]
    ):  # fmt: skip
        await spool.accept(said(serial, *each))
    for message_id in ("<same@x.example>", "same@x.example"):
        assert sorted(await spool.greetings(message_id, "maildrop", "f1.d.")) == ["f1.d.0-1", "f1.d.2-3"]
    assert await spool.greetings("<other@x.example>", "maildrop", "f1.d.") == ["f1.d.0-7"]
    assert await spool.greetings("", "maildrop", "f1.d.") == []


async def test_more_of_one_message_id_than_find_shows_hide_no_greeting(spool: Store) -> None:
    for serial in range(1_001):
        await spool.accept(submission(serial, message_id="<same@x.example>"))
    made = submission(1_002, message_id="<same@x.example>")
    message = replace(made.message, origin=Origin("maildrop", "", "f1.d.0-1"))
    await spool.accept(replace(made, message=message, deliveries=tuple(replace(each, message=message) for each in made.deliveries)))
    assert await spool.greetings("<same@x.example>", "maildrop", "f1.d.") == ["f1.d.0-1"]


async def test_find_knows_queue_ids_message_ids_and_remote_ids(spool: Store) -> None:
    made = [submission(n, message_id=f"<same.{n % 2}@x.example>", state=State.IN_FLIGHT) for n in (4, 2, 3)]
    bare = submission(5, message_id="no-brackets@x.example")
    for each in (*made, bare):
        await spool.accept(each)
    await spool.settle(settlement(made[2], delivered("0100018f-ses-id")))
    names = sorted(each.message.id for each in made[:2])
    assert await spool.find("same.0@x.example") == names
    assert await spool.find(" <same.0@x.example> ") == names
    assert await spool.find("<no-brackets@x.example>") == [bare.message.id]
    assert await spool.find("0100018f-ses-id") == [made[2].message.id]
    for seen_by_recipients in ("<0100018f-ses-id@email.amazonses.com>", "0100018f-ses-id@eu-west-1.amazonses.com"):
        assert await spool.find(seen_by_recipients) == [made[2].message.id]
    assert await spool.find(bare.message.id) == [bare.message.id]
    for nothing in ("", "<>", "0000000000000", "%", "same.0"):
        assert await spool.find(nothing) == []


async def test_show_and_recent(spool: Store) -> None:
    names = await filled(spool)
    assert await spool.show("nonsense") is None
    assert await spool.show("0000000000000") is None
    shown = await spool.show(names[2])
    assert shown is not None
    assert [each.delivery.recipient.address for each in shown.deliveries] == ["Bob@BÜCHER.example", "carol@example.net"]
    recent = await spool.recent(2)
    assert [each.message.id for each in recent] == [names[6], names[5]]
    assert recent[0].events == ()
    assert [each.end for each in recent[1].deliveries] == ["delivered"]


async def test_hold_and_release(spool: Store) -> None:
    made = submission(1)
    await spool.accept(made)
    assert await spool.change("hold", Filter(ids=(made.message.id,)), NOW + 1) == 1
    assert await spool.change("hold", Filter(ids=(made.message.id,)), NOW + 2) == 0
    (record,) = await spool.list(Filter(), NOW, None, 9)
    assert (record.delivery.state, record.delivery.reason) == (State.HELD, "operator")
    assert (await spool.claim(SES, 9, NOW + 9)).deliveries == ()
    assert await spool.change("retry", Filter(sender="@example.com"), NOW + 3) == 0
    assert await spool.change("release", Filter(sender="@example.com"), NOW + 4) == 1
    (delivery,) = (await spool.claim(SES, 9, NOW + 4)).deliveries
    assert (delivery.state, delivery.reason, delivery.due) == (State.QUEUED, None, NOW + 4)
    shown = await spool.show(made.message.id)
    assert shown is not None
    assert [(each.event, each.time) for each in shown.events[2:]] == [("held", NOW + 1), ("released", NOW + 4)]


async def test_release_forgets_doubts(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    await spool.settle(settlement(made, held("in_doubt")))
    assert await spool.change("release", Filter(states=(State.HELD,)), NOW) == 1
    (delivery,) = (await spool.claim(SES, 9, NOW)).deliveries
    assert (delivery.doubts, delivery.attempts) == (0, 1)


async def test_retry_makes_due_now(spool: Store) -> None:
    await spool.accept(submission(1, due=NOW + 9_999))
    assert await spool.change("retry", Filter(transport="ses"), NOW + 5) == 1
    assert [each.due for each in (await spool.claim(SES, 9, NOW + 5)).deliveries] == [NOW + 5]


async def test_a_retry_in_flight_is_told_though_its_moment_was_due_anyway(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    assert await spool.change("retry", Filter(transport="ses"), NOW) == 1
    await spool.settle(settlement(made, deferred(LATER)))
    record = await spool.show(made.message.id)
    assert record is not None
    assert [event.event for event in record.events][-1] == "released"


async def test_what_was_held_is_released_by_another_way_out(spool: Store) -> None:
    made = submission(1, state=State.HELD)
    await spool.accept(made)
    assert await spool.change("release", Filter(states=(State.HELD,)), NOW, "other") == 1
    (record,) = await spool.list(Filter(), NOW, None, 9)
    assert (record.delivery.state, record.delivery.via) == (State.QUEUED, "other")


async def test_what_is_scheduled_keeps_its_hour_unless_a_retry_names_it(spool: Store) -> None:
    made, late = submission(1, due=NOW + 9_999, priority=Priority.HIGH), submission(2)
    envelope = replace(made.message.envelope, release=NOW + 9_999)
    message = replace(made.message, envelope=envelope)
    made = replace(
        made, message=message, deliveries=tuple(replace(one, message=message, reason="scheduled") for one in made.deliveries)
    )
    for each in (made, late):
        await spool.accept(each)

    async def found() -> list[tuple[float, str | None]]:
        return [(one.delivery.due, one.delivery.reason) for one in await spool.list(Filter(), NOW, None, 9)]

    async def told() -> list[str]:
        record = await spool.show(made.message.id)
        assert record is not None
        return [event.event for event in record.events[2:]]

    assert await spool.change("retry", Filter(sender="@example.com"), NOW + 5) == 1, "nothing of what is scheduled changes"
    assert await found() == [(NOW + 9_999, "scheduled"), (NOW + 5, None)]
    assert await told() == []
    assert await spool.change("retry", Filter(states=(State.QUEUED,)), NOW + 5, "other") == 2, "its way does"
    assert [one.delivery.via for one in await spool.list(Filter(), NOW, None, 9)] == ["other", "other"]
    assert await found() == [(NOW + 9_999, "scheduled"), (NOW + 5, None)]
    assert await spool.change("hold", Filter(sender="@example.com"), NOW + 6) == 2
    assert await spool.change("release", Filter(sender="@example.com"), NOW + 7) == 2
    assert await found() == [(NOW + 9_999, "scheduled"), (NOW + 7, None)]
    assert await spool.change("hold", Filter(ids=(made.message.id,)), NOW + 8) == 1
    assert await spool.change("release", Filter(ids=(made.message.id,)), NOW + 9) == 1
    assert await found() == [(NOW + 9_999, "scheduled"), (NOW + 7, None)]
    assert await spool.change("retry", Filter(ids=(made.message.id,)), NOW + 10) == 1
    assert (await found())[0][0] == NOW + 10
    assert (await told())[-1] == "released"
    await spool.claim(SES, 9, NOW + 10)
    await spool.open_attempt(ids(made), NOW + 60)
    await spool.settle(settlement(made, deferred(NOW + 30)))
    assert await spool.change("retry", Filter(sender="@example.com"), NOW + 20) == 2, "what was tried already has no hour to keep"
    assert (await found())[0] == (NOW + 20, "later")
    await spool.accept(scheduled(3, NOW + 19))
    assert await spool.change("retry", Filter(recipient="bob@example.org", states=(State.QUEUED,)), NOW + 20) == 3, (
        "its hour has come"
    )


async def test_delete_ends_what_is_open_and_its_content(spool: Store) -> None:
    made = submission(1, recipients=["a@example.org", "b@example.org"])
    await spool.accept(made)
    assert await spool.change("delete", Filter(recipient="a@example.org"), NOW) == 1
    assert await spool.content(made.message.id) == BODY
    assert (await spool.stats()).counts == {("ses", State.QUEUED): 1}
    assert await spool.change("delete", Filter(ids=(made.message.id,)), NOW) == 1
    assert await spool.stats() == Stats()
    assert await spool.change("delete", Filter(states=tuple(State), ids=(made.message.id,)), NOW) == 0
    shown = await spool.show(made.message.id)
    assert shown is not None
    assert [(each.delivery.state, each.end, each.delivery.reason) for each in shown.deliveries] == [
        (State.FAILED, None, "deleted")
    ] * 2


async def test_an_empty_filter_changes_nothing(spool: Store) -> None:
    await filled(spool)
    assert await spool.change("delete", Filter(), NOW) == 0
    assert len(await spool.list(Filter(), NOW, None, 99)) == 5


async def test_a_change_goes_through_more_than_a_page(spool: Store) -> None:
    made = submission(1, recipients=[f"r{n}@example.org" for n in range(1_203)])
    await spool.accept(made)
    assert await spool.change("hold", Filter(sender="@example.com"), NOW) == 1_203
    assert (await spool.stats()).counts == {("ses", State.HELD): 1_203}
    assert len(await spool.list(Filter(), NOW, None, 5_000)) == 1_203
    assert await spool.change("release", Filter(sender="@example.com"), NOW) == 1_203
    assert [each.id for each in (await spool.claim(SES, 5_000, NOW)).deliveries] == ids(made)


async def test_stats_count_what_is_open(spool: Store) -> None:
    assert await spool.stats() == Stats()
    await filled(spool)
    stats = await spool.stats()
    assert stats == Stats(
        4, 4 * len(BODY), NOW + 1,
        {("ses", State.QUEUED): 1, ("direct", State.QUEUED): 2, ("ses", State.HELD): 1, ("ses", State.IN_FLIGHT): 1},
        {"ses": NOW + 1, "direct": NOW + 2},
    )  # fmt: skip


def scheduled(serial: int, release: float, **more: Any) -> Submission:
    """Make a message that its sender wants sent at `release`."""
    made = submission(serial, due=release, **more)
    message = replace(made.message, envelope=replace(made.message.envelope, release=release))
    waiting = tuple(replace(one, message=message, reason="scheduled") for one in made.deliveries)
    return replace(made, message=message, deliveries=waiting)


async def test_the_age_of_what_is_scheduled_counts_from_its_hour(spool: Store) -> None:
    async def ages() -> dict[str, float]:
        stats = await spool.stats()
        found = {name: max(LATER - since, 0.0) for name, since in stats.oldest_by_transport.items()}
        assert stats.oldest == min(stats.oldest_by_transport.values())
        return found

    await spool.accept(scheduled(1, LATER + 60))
    await spool.accept(scheduled(2, LATER + 70, state=State.HELD))
    assert await ages() == {"ses": 0.0}, "none is due yet"
    await spool.accept(submission(9, lane=MX))
    await spool.accept(due := scheduled(3, LATER - 20))
    assert await ages() == {"ses": 20.0, "direct": 5_000.0 - 9}
    await spool.claim(SES, 9, LATER)
    await spool.open_attempt(ids(due), LATER + 60)
    assert (await ages())["ses"] == 20.0, "on its way, and due again later if that is lost"
    await spool.settle(settlement(due, deferred(LATER + 30)))
    assert (await ages())["ses"] == 20.0, "tried, and due again later"
    await spool.accept(submission(4))
    await spool.accept(scheduled(5, LATER - 4_999))
    assert (await ages())["ses"] == 5_000.0 - 4, "the oldest is not the first that came"
    await spool.settle(settlement(due, delivered()))
    await spool.change("delete", Filter(sender="@example.com", states=(State.QUEUED,)), LATER)
    assert await ages() == {"ses": 0.0}, "what is held keeps its hour too"


async def test_what_is_retried_by_another_way_out_keeps_it_and_what_is_in_doubt_stays(spool: Store) -> None:
    plain, doubtful, flying, kept = (submission(serial) for serial in range(1, 5))
    for made in (plain, doubtful, kept):
        await spool.accept(made, claimed=True)
    await spool.accept(submission(3, state=State.IN_FLIGHT))
    await spool.open_attempt(ids(doubtful), NOW + 60)
    await spool.settle(settlement(doubtful, replace(deferred(), pinned="ses")))
    await spool.unclaim(ids(plain))
    chosen = Filter(ids=tuple(each.message.id for each in (plain, doubtful, flying)))
    assert await spool.change("retry", chosen, NOW, "other") == 3
    await spool.settle(settlement(flying, deferred(NOW + 99)))
    found = {each.delivery.id: each.delivery for each in await spool.list(Filter(), NOW, None, 9)}
    assert [found[ids(each)[0]].via for each in (plain, doubtful, flying, kept)] == ["other", None, "other", None]
    assert found[ids(plain)[0]].due == NOW


@pytest.mark.parametrize(
    ("reason", "via", "after"),
    [("in_doubt", None, ("ses", None)), ("in_doubt", "other", (None, "other")), ("no_route", "other", (None, "other")), ("operator", "other", ("ses", None))],
)  # fmt: skip
async def test_what_waited_for_a_decision_is_in_doubt_no_longer_once_it_is_released_by_another_way(
    spool: Store, reason: str, via: str | None, after: tuple[str | None, str | None]
) -> None:
    doubtful = submission(1, state=State.IN_FLIGHT)
    await spool.accept(doubtful)
    await spool.settle(settlement(doubtful, replace(held(), doubts=3, pinned="ses", reason=reason)))
    assert await spool.change("release", Filter(ids=(doubtful.message.id,)), NOW, via) == 1
    (found,) = await spool.list(Filter(), NOW, None, 9)
    assert (found.delivery.state, found.delivery.doubts) == (State.QUEUED, 0)
    assert (found.delivery.pinned, found.delivery.via) == after


async def test_what_is_parked_is_held_as_it_comes_until_it_is_lifted(spool: Store) -> None:
    (delivery,) = submission(1).deliveries
    assert (spool.standing_hold(delivery), spool.parked()) == (None, [])
    wish = Filter(sender="@Example.com", transport="ses")
    await spool.park(wish, NOW)
    await spool.park(Filter(sender="*@example.COM", transport="ses"), NOW + 1)
    (hold,) = spool.parked()
    assert (hold.filter, hold.since) == (Filter(sender="*@example.com", transport="ses"), NOW)
    assert spool.standing_hold(delivery) == "operator"
    made, report = submission(2, state=State.IN_FLIGHT), submission(3)
    await spool.accept(made)
    await spool.settle(Settlement(dict.fromkeys(ids(made), failed()), (), (report,)))
    shown = await spool.show(report.message.id)
    assert shown is not None
    assert (shown.deliveries[0].delivery.state, "held" in {event.event for event in shown.events}) == (State.HELD, True)
    assert not await spool.unpark(Filter(sender="@example.com"))
    assert await spool.unpark(wish)
    assert (spool.standing_hold(delivery), spool.parked()) == (None, [])


async def test_a_change_tells_how_far_it_is(spool: Store) -> None:
    for n in range(1, 4):
        await spool.accept(submission(n, sender="a@example.com" if n % 2 else "b@example.net"))
    told: list[tuple[int, int]] = []
    assert await spool.change("hold", Filter(sender="@example.com"), NOW, told=lambda *far: told.append(far)) == 2
    assert told[-1][1] == 2
    assert told[-1][0] >= 2


async def test_what_is_parked_outlives_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path / "state")
    await first.park(Filter(recipient="*@example.org"), NOW)
    await first.close()
    again = await opened(tmp_path / "state")
    assert again.standing_hold(submission(1).deliveries[0]) == "operator"
    assert await again.unpark(Filter(recipient="@example.org"))
    await again.close()
    last = await opened(tmp_path / "state")
    assert last.parked() == []
    await last.close()
