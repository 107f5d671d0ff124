"""What `seams.Spool` promises, held by the store on SQLite with either writer, and by the one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from batches import filed
from fakes import FakeClock
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Priority, State, Stream
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Recipient, Rung
from sesrelay.mail.filed import Filed
from sesrelay.mail.trace import Event
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.seams import Claim, Filter, Opened, Settlement, SpoolError, Submission, Superseded
from sesrelay.spool import sqlite
from sesrelay.spool.files import THRESHOLD
from sesrelay.spool.memory import MemorySpool
from sesrelay.spool.sqlite import SqliteSpool
from spool_world import (
    BODY,
    MX,
    NOW,
    SES,
    as_in_flight,
    deferred,
    delivered,
    failed,
    held,
    ids,
    opened,
    settlement,
    submission,
)

Store = SqliteSpool | MemorySpool

REPORT = Descent(Rung.SES, ("direct", "ses as example.com"), ("example.com",))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW + 5_000.0)


@pytest.fixture(params=["sqlite", "apart", "memory"])
async def spool(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    apart = request.param == "apart"
    store = MemorySpool(clock) if request.param == "memory" else await opened(tmp_path / "state", clock, apart=apart)
    yield store
    await store.close()


# --- accept ------------------------------------------------------------------------------------------------------


async def test_what_is_accepted_comes_back_whole(spool: Store) -> None:
    recipients = (
        Recipient("Bob@Example.org", frozenset({"FAILURE", "DELAY"}), "rfc822;Bob@Example.org", None),
        Recipient("jörg@bücher.example", frozenset({"NEVER"})),
        Recipient("root@here.example", hold="local"),
    )
    message = Message(
        "0abcdefghijkl", Envelope("ann@example.com", recipients, "8BITMIME", True, "HDRS", "env+2B1"),
        Origin("[::1]:25", "::1", "hélo", "www-data", "TLSv1.3"), 7, NOW + 0.123456, ("ann@example.com", "b@c.example"),
        "<a@b>", "Grüße \udce4 \x00 end", REPORT, ("removed Bcc", "NUL became a space"),
    )  # fmt: skip
    plain = submission(1).deliveries[0]
    deliveries = tuple(
        replace(plain, id=DeliveryId(message.id, n), message=message, recipient=each, due=NOW + n, attempts=n, doubts=n,
                placement=Placement("röute", SES, Priority(n), "site"), pinned="ses" if n else None, warned=bool(n),
                reason="why" if n else None, reply="451 4.0.0 Später" if n else None)
        for n, each in enumerate(recipients)
    )  # fmt: skip
    events = (
        Event(NOW, "accepted", changes=("a", "b")),
        Event(NOW + 1, "routed", "x@y", "t", "n", "o", "r", "i", 0.25, "TLS", host="mx"),
    )
    await spool.accept(Submission(message, b"\0\xff\r\n.\r\n", deliveries, events))
    shown = await spool.show(message.id)
    assert shown is not None
    assert shown.message == message
    assert tuple(each.delivery for each in shown.deliveries) == deliveries
    assert shown.events == events
    assert await spool.content(message.id) == b"\0\xff\r\n.\r\n"
    claimed = [(await spool.claim(SES, 9, NOW + 9)).deliveries]
    assert [tuple(each) for each in claimed] == [deliveries]


async def test_a_queue_id_is_taken_once(spool: Store) -> None:
    await spool.accept(submission(1))
    with pytest.raises(SpoolError):
        await spool.accept(submission(1, content=b"other"))
    assert await spool.content(submission(1).message.id) == BODY
    assert (await spool.stats()).messages == 1


async def test_one_bad_operation_in_a_group_fails_alone(spool: Store) -> None:
    await spool.accept(submission(5))
    results = await asyncio.gather(*(spool.accept(submission(serial)) for serial in range(1, 10)), return_exceptions=True)
    assert [type(each) for each in results] == [SpoolError if serial == 5 else type(None) for serial in range(1, 10)]
    stats = await spool.stats()
    assert stats.messages == 9
    assert stats.counts == {("ses", State.QUEUED): 9}


@pytest.mark.parametrize("what", ["no delivery", "no recipient", "ended", "twice", "no id"])
async def test_a_submission_that_contradicts_itself_is_refused(spool: Store, what: str) -> None:
    good = submission(1)
    one = good.deliveries[0]
    bad = {
        "no delivery": replace(good, deliveries=()),
        "no recipient": replace(good, deliveries=(replace(one, recipient=Recipient("eve@example.org")),)),
        "ended": replace(good, deliveries=(replace(one, state=State.DELIVERED),)),
        "twice": replace(good, deliveries=(one, one)),
        "no id": replace(good, message=replace(good.message, id="nonsense")),
    }[what]
    with pytest.raises(SpoolError):
        await spool.accept(bad)
    assert (await spool.stats()).messages == 0
    await spool.accept(good)


async def test_deliveries_accepted_in_flight_are_on_record_as_such(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT, recipients=["a@example.org", "b@example.org"], due=NOW + 60)
    await spool.accept(made)
    assert tuple(await spool.open_attempts(10)) == made.deliveries
    assert len(await spool.open_attempts(1)) == 1
    assert (await spool.claim(SES, 10, NOW + 1_000)).deliveries == ()
    assert await spool.lanes() == {}


@pytest.mark.parametrize("size", [0, THRESHOLD, THRESHOLD + 1, 3 * THRESHOLD])
async def test_content_of_any_size_comes_back_and_goes_with_the_message(spool: Store, size: int) -> None:
    made = submission(1, content=bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    await spool.accept(made)
    assert await spool.content(made.message.id) == made.content
    with pytest.raises(SpoolError):
        await spool.accept(made)
    assert await spool.content(made.message.id) == made.content
    await spool.open_attempt(ids(made), NOW)
    await spool.settle(settlement(made, delivered()))
    with pytest.raises(SpoolError):
        await spool.content(made.message.id)


async def test_content_in_a_file_is_stored_as_if_it_were_held(spool: Store) -> None:
    line = b"x" * 70 + b"\r\n"
    for serial, octets in enumerate((100, THRESHOLD, 5 * THRESHOLD), 1):  # whatever its size has become
        content = BODY + line * (octets // len(line))
        made = submission(serial, content=content)
        await spool.accept(replace(made, content=filed(content)))
        assert await spool.content(made.message.id) == content
        found = await spool.filed(made.message.id)
        if octets > THRESHOLD and isinstance(spool, SqliteSpool):
            assert found is not None
            assert (found.head, found.whole()) == (b"Subject: x\r\n\r\n", content)
            await spool.open_attempt(ids(made), NOW)
            await spool.settle(settlement(made, delivered()))
            assert found.whole() == content  # for whoever has it still
            assert await gone(spool, made.message.id) is None
        else:
            assert found is None


async def gone(spool: Store, message: str) -> Filed | None:
    """Return what there is of a message that has ended, once its file has had time to go."""
    for _ in range(200):
        if await spool.filed(message) is None:
            return None
        await asyncio.sleep(0.02)
    return await spool.filed(message)


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: \xff\r\n\r\n",
        b"Subject: x\r\n\r\n\xff\r\n",
        b"Subject: x\r\n\r\n" + b"x" * 999,
        b"no header\r\n\r\n",
        b"Subject: x\r\nno\r\n",
    ],
)
async def test_what_may_have_to_be_encoded_anew_is_read_whole(spool: Store, content: bytes) -> None:
    made = submission(1, content=content + b"x\r\n" * THRESHOLD)
    await spool.accept(made)
    assert await spool.filed(made.message.id) is None
    assert await spool.content(made.message.id) == made.content


async def test_content_of_what_was_never_there(spool: Store) -> None:
    for name in ("0000000000000", "nonsense", ""):
        with pytest.raises(SpoolError):
            await spool.content(name)


# --- claim -------------------------------------------------------------------------------------------------------


async def test_claims_go_by_priority_then_due_then_arrival(spool: Store) -> None:
    order = [
        submission(6, priority=Priority.HIGH, due=NOW + 3),
        submission(2, priority=Priority.NORMAL, due=NOW + 1),
        submission(4, priority=Priority.NORMAL, due=NOW + 2, recipients=["a@example.org", "b@example.org", "c@example.org"]),
        submission(5, priority=Priority.NORMAL, due=NOW + 2),
        submission(1, priority=Priority.LOW, due=NOW),
    ]
    for made in sorted(order, key=lambda each: each.message.id):
        await spool.accept(made)
    await spool.accept(submission(7, lane=MX))
    wanted = [delivery for made in order for delivery in made.deliveries]
    first = await spool.claim(SES, 4, NOW + 10)
    assert list(first.deliveries) == wanted[:4]
    assert first.next_due == NOW  # the low one: due, but not handed out
    second = await spool.claim(SES, 10, NOW + 10)
    assert list(second.deliveries) == wanted[4:]
    assert second.next_due is None
    assert (await spool.claim(SES, 10, NOW + 10)).deliveries == ()


async def test_sites_of_one_priority_take_turns(spool: Store) -> None:
    for serial in range(1, 9):
        await spool.accept(submission(serial, site="big"))
    await spool.accept(submission(9, site="small"))
    await spool.accept(submission(10, site="other", recipients=["a@example.org", "b@example.org"]))
    await spool.accept(submission(11, site="later", due=NOW + 9))
    await spool.accept(submission(12, site="small", priority=Priority.LOW, due=NOW - 1))

    def sites(claim: Claim) -> list[str]:
        return [each.placement.site for each in claim.deliveries]

    first = await spool.claim(SES, 6, NOW)
    assert sites(first) == ["big", "other", "small", "big", "other", "big"]
    assert first.due == {
        Stream(Priority.NORMAL, "big"): NOW, Stream(Priority.NORMAL, "later"): NOW + 9, Stream(Priority.LOW, "small"): NOW - 1,
    }  # fmt: skip
    await spool.unclaim([each.id for each in first.deliveries])
    assert sites(await spool.claim(SES, 2, NOW, after="big")) == ["other", "small"]


async def test_streams_that_are_passed_over_are_not_looked_at(spool: Store) -> None:
    for serial, site in enumerate(["a", "b", "c"], 1):
        await spool.accept(submission(serial, site=site))
    claim = await spool.claim(SES, 1, NOW, passed_over={Stream(Priority.NORMAL, "a"), Stream(Priority.HIGH, "b")})
    assert [each.placement.site for each in claim.deliveries] == ["b"]
    assert claim.due == {Stream(Priority.NORMAL, "c"): NOW}


async def test_what_is_not_due_is_not_handed_out_but_told_of(spool: Store) -> None:
    await spool.accept(submission(1, due=NOW + 50, priority=Priority.HIGH))
    await spool.accept(submission(2, due=NOW + 20, priority=Priority.LOW))
    claim = await spool.claim(SES, 10, NOW + 10)
    assert (claim.deliveries, claim.next_due) == ((), NOW + 20)
    claim = await spool.claim(SES, 10, NOW + 20)
    assert [each.due for each in claim.deliveries] == [NOW + 20]
    assert claim.next_due == NOW + 50
    assert (await spool.claim(LaneKey("ses", "other"), 10, NOW + 99)).next_due is None


async def test_a_claim_is_free_again_after_unclaim_postpone_or_settle(spool: Store) -> None:
    made = submission(1)
    await spool.accept(made, claimed=True)
    assert (await spool.claim(SES, 10, NOW)).deliveries == ()
    assert await spool.lanes() == {}
    await spool.unclaim(ids(made))
    assert await spool.lanes() == {SES: NOW}
    assert (await spool.claim(SES, 10, NOW)).deliveries == made.deliveries
    await spool.postpone(ids(made), NOW + 7, "paused")
    claim = await spool.claim(SES, 10, NOW)
    assert (claim.deliveries, claim.next_due) == ((), NOW + 7)
    (again,) = (await spool.claim(SES, 10, NOW + 7)).deliveries
    assert (again.reason, again.attempts, again.due) == ("paused", 0, NOW + 7)
    assert (await spool.open_attempt(ids(made), NOW + 60)).ids == set(ids(made))
    await spool.settle(settlement(made, deferred(NOW + 30)))
    (again,) = (await spool.claim(SES, 10, NOW + 30)).deliveries
    assert (again.state, again.attempts, again.reason, again.reply) == (State.QUEUED, 1, "later", "451 4.0.0 Later")


async def test_postpone_without_a_reason_keeps_the_old_one_and_touches_only_what_is_queued(spool: Store) -> None:
    queued, flying = submission(1), submission(2, state=State.IN_FLIGHT, due=NOW + 60)
    for made in (queued, flying):
        await spool.accept(made)
    await spool.postpone(ids(queued) + ids(flying), NOW + 5, "throttled")
    await spool.postpone(ids(queued), NOW + 9, None)
    assert [each.delivery.due for each in await spool.list(Filter(), NOW, None, 10)] == [NOW + 9, NOW + 60]
    assert [each.delivery.reason for each in await spool.list(Filter(), NOW, None, 10)] == ["throttled", None]


# --- attempts and their end --------------------------------------------------------------------------------------


async def test_only_what_is_still_queued_is_attempted(spool: Store) -> None:
    made = submission(1, recipients=[f"r{n}@example.org" for n in range(4)])
    await spool.accept(made, claimed=True)
    await spool.change("hold", Filter(recipient="r1@example.org"), NOW)
    await spool.change("delete", Filter(recipient="r2@example.org"), NOW)
    opened = await spool.open_attempt([*ids(made), DeliveryId(made.message.id, 99), DeliveryId("0000000000000", 0)], NOW + 60)
    assert opened.ids == {ids(made)[0], ids(made)[3]}
    wanted = [as_in_flight(made.deliveries[n], NOW + 60) for n in (0, 3)]
    assert list(await spool.open_attempts(10)) == wanted
    assert (await spool.open_attempt(ids(made), NOW + 99)).ids == frozenset()
    # The claim of what was held is dropped: released, it is handed out.
    await spool.change("release", Filter(recipient="r1@example.org"), NOW)
    assert [each.id for each in (await spool.claim(SES, 10, NOW)).deliveries] == [ids(made)[1]]


async def test_what_is_opened_brings_its_content_if_that_is_wanted_and_whole(spool: Store) -> None:
    small, cut, held, large = (
        submission(serial, content=BODY + b"y" * size) for serial, size in enumerate((9, 9, 9, THRESHOLD), 1)
    )
    for made in (small, cut, held, large):
        await spool.accept(made, claimed=True)
    await spool.change("hold", Filter(ids=(held.message.id,)), NOW)
    assert await spool.open_attempt(ids(small), NOW + 60, read=len(small.content)) == Opened(frozenset(ids(small)), small.content)
    assert await spool.open_attempt(ids(cut), NOW + 60, read=len(cut.content) + 1) == Opened(frozenset(ids(cut)))
    assert await spool.open_attempt(ids(held), NOW + 60, read=len(held.content)) == Opened(frozenset())
    in_a_file = await spool.open_attempt(ids(large), NOW + 60, read=len(large.content))
    assert in_a_file.content == (None if isinstance(spool, SqliteSpool) else large.content)


async def test_an_end_is_stored_with_its_reply_events_and_report(spool: Store) -> None:
    made = submission(1, recipients=["a@example.org", "b@example.org", "c@example.org"])
    await spool.accept(made)
    await spool.open_attempt(ids(made), NOW + 60)
    report = submission(2, sender="", recipients=["alice@example.com"], report=REPORT, content=b"bounce")
    verdicts = dict(zip(ids(made), [delivered("ses-1"), failed(), deferred()], strict=True))
    event = Event(NOW + 3_000, "attempt", "a@example.org", *SES, "delivered", "250 Ok", "ses-1", 0.5)
    await spool.settle(Settlement(verdicts, (event,), (report,)))
    shown = await spool.show(made.message.id)
    assert shown is not None
    assert [each.end for each in shown.deliveries] == ["delivered", "failed", None]
    assert [each.remote_id for each in shown.deliveries] == ["ses-1", None, None]
    assert [each.delivery.state for each in shown.deliveries] == [State.DELIVERED, State.FAILED, State.QUEUED]
    assert shown.events == (*made.events, event)
    assert await spool.content(made.message.id) == BODY
    assert await spool.content(report.message.id) == b"bounce"
    assert [each.id for each in (await spool.claim(SES, 10, NOW)).deliveries] == ids(report)
    stats = await spool.stats()
    assert (stats.messages, stats.bytes, stats.counts) == (2, len(BODY) + 6, {("ses", State.QUEUED): 2})


async def test_a_settlement_that_cannot_be_stored_changes_nothing(spool: Store) -> None:
    made = submission(1)
    await spool.accept(made, claimed=True)
    await spool.open_attempt(ids(made), NOW + 60)
    with pytest.raises(SpoolError):
        await spool.settle(settlement(made, failed(), reports=[submission(2), submission(1)]))
    assert [each.id for each in await spool.open_attempts(9)] == ids(made)
    assert await spool.show(submission(2).message.id) is None
    assert await spool.content(made.message.id) == BODY
    await spool.settle(settlement(made, failed(), reports=[submission(2)]))


async def test_a_large_report_is_stored_with_its_outcome(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    report = submission(2, sender="", content=b"r" * (THRESHOLD + 5))
    await spool.settle(settlement(made, failed(), reports=[report]))
    assert await spool.content(report.message.id) == report.content


async def test_events_that_name_no_message_are_refused(spool: Store) -> None:
    one, two = submission(1, state=State.IN_FLIGHT), submission(2, state=State.IN_FLIGHT)
    for made in (one, two):
        await spool.accept(made)
    both = {ids(one)[0]: delivered(), ids(two)[0]: delivered()}
    with pytest.raises(SpoolError):
        await spool.settle(Settlement(both, (Event(NOW, "attempt"),)))
    await spool.settle(Settlement(both))
    assert (await spool.stats()).messages == 0


async def test_an_end_stands_and_news_of_what_is_gone_is_ignored(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    await spool.settle(settlement(made, delivered()))
    await spool.settle(settlement(made, deferred()))
    await spool.settle(settlement(submission(9), delivered()))
    (record,) = await spool.list(Filter(states=(State.DELIVERED,)), NOW, None, 9)
    assert record.end == "delivered"
    assert (await spool.stats()).counts == {}


@pytest.mark.parametrize("where", ["queued", "claimed", "held", "in flight"])
async def test_news_of_an_end_counts_wherever_the_delivery_stands(spool: Store, where: str) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    if where != "in flight":
        await spool.settle(settlement(made, held() if where == "held" else deferred(NOW)))
    if where == "claimed":
        assert len((await spool.claim(SES, 9, NOW)).deliveries) == 1
    await spool.settle(settlement(made, delivered("heard-later")))
    assert (await spool.open_attempt(ids(made), NOW)).ids == frozenset()
    await spool.settle(settlement(made, deferred()))
    shown = await spool.show(made.message.id)
    assert shown is not None
    assert [(each.delivery.state, each.remote_id) for each in shown.deliveries] == [(State.DELIVERED, "heard-later")]
    assert (await spool.stats()).bytes == 0


async def test_content_stays_while_one_delivery_is_held(spool: Store) -> None:
    made = submission(1, recipients=["a@example.org", "b@example.org"], state=State.IN_FLIGHT)
    await spool.accept(made)
    await spool.settle(Settlement({ids(made)[0]: delivered(), ids(made)[1]: held()}))
    assert await spool.content(made.message.id) == BODY
    assert (await spool.stats()).counts == {("ses", State.HELD): 1}
    assert await spool.change("delete", Filter(ids=(made.message.id,)), NOW) == 1
    with pytest.raises(SpoolError):
        await spool.content(made.message.id)
    assert (await spool.stats()).bytes == 0


async def test_what_a_remote_host_says_cannot_stop_a_commit(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    await spool.settle(settlement(made, replace(delivered("\udcff"), reply="250 \udc80 caf\xe9 \U0001f600")))
    assert (await spool.stats()).messages == 0


@pytest.mark.parametrize(
    ("verb", "state", "reason"),
    [("hold", State.HELD, "operator"), ("delete", State.FAILED, "deleted"), ("retry", State.QUEUED, "later")],
)
async def test_a_wish_in_flight_takes_effect_when_the_attempt_ends(
    spool: Store, clock: FakeClock, verb: str, state: State, reason: str
) -> None:
    made = submission(1)
    await spool.accept(made, claimed=True)
    await spool.open_attempt(ids(made), NOW + 60)
    assert await spool.change(verb, Filter(ids=(made.message.id,)), NOW) == 1  # type: ignore[arg-type]
    assert [each.state for each in await spool.open_attempts(9)] == [State.IN_FLIGHT]
    await spool.settle(settlement(made, deferred(NOW + 99_999)))
    shown = await spool.show(made.message.id)
    assert shown is not None
    one = shown.deliveries[0]
    assert (one.delivery.state, one.delivery.reason, one.delivery.due) == (state, reason, clock.now)
    assert (shown.events[-1].event, shown.events[-1].recipient) == (
        {"hold": "held", "delete": "failed", "retry": "released"}[verb],
        "bob@example.org",
    )
    assert (await spool.stats()).messages == (0 if verb == "delete" else 1)


async def test_a_wish_is_good_for_one_attempt(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    await spool.change("hold", Filter(ids=(made.message.id,)), NOW)
    await spool.settle(settlement(made, deferred()))
    await spool.change("release", Filter(ids=(made.message.id,)), NOW)
    await spool.open_attempt(ids(made), NOW + 60)
    await spool.settle(settlement(made, deferred(NOW + 77)))
    (record,) = await spool.list(Filter(), NOW, None, 9)
    assert (record.delivery.state, record.delivery.due) == (State.QUEUED, NOW + 77)


async def test_a_wish_yields_to_a_delivery_that_has_ended(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    assert await spool.change("delete", Filter(ids=(made.message.id,)), NOW) == 1
    assert await spool.change("hold", Filter(ids=(made.message.id,)), NOW) == 0  # what is to be deleted stays so
    await spool.settle(settlement(made, delivered()))
    (record,) = await spool.list(Filter(states=(State.DELIVERED,)), NOW, None, 9)
    assert record.end == "delivered"


async def test_release_takes_back_a_hold_in_flight(spool: Store) -> None:
    made = submission(1, state=State.IN_FLIGHT)
    await spool.accept(made)
    assert await spool.change("release", Filter(states=(State.IN_FLIGHT,)), NOW) == 0
    assert await spool.change("hold", Filter(states=(State.IN_FLIGHT,)), NOW) == 1
    assert await spool.change("release", Filter(states=(State.IN_FLIGHT,)), NOW) == 1
    await spool.settle(settlement(made, deferred()))
    assert [each.delivery.state for each in await spool.list(Filter(), NOW, None, 9)] == [State.QUEUED]


# --- the clock ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "due", "then"),
    [
        ("later", NOW + 100, NOW + 60),  # what was to come in so many seconds still is
        ("later", NOW + 40, NOW),
        ("later", NOW + 10, NOW),  # it was due before the clock was set
        ("later", NOW - 5, NOW - 5),
        (SCHEDULED, NOW + 100, NOW + 100),  # an hour of the day stays that hour
        (SCHEDULED, NOW + 40, NOW),
        (SCHEDULED, NOW - 5, NOW - 5),
    ],
)
@pytest.mark.parametrize("others", [0, 3])
async def test_when_the_clock_is_set_back_what_waits_waits_no_longer(
    spool: Store, monkeypatch: pytest.MonkeyPatch, reason: str, due: float, then: float, others: int
) -> None:
    monkeypatch.setattr(sqlite, "CHANGE_PAGE", 2)
    made = submission(5, recipients=("a@example.org", "b@example.org"), due=due)
    made = replace(made, deliveries=tuple(replace(each, reason=reason) for each in made.deliveries))
    for serial in range(10, 10 + others):
        await spool.accept(submission(serial, due=NOW + 100, lane=MX))
    await spool.accept(made)
    await spool.accept(submission(6, state=State.HELD, due=NOW + 100))
    await spool.set_back(40.0, NOW)
    listed = await spool.list(Filter(states=tuple(State)), NOW, None, 99)
    found = {each.delivery.id: each.delivery.due for each in listed}
    assert [found.pop(each) for each in ids(made)] == [then, then]
    assert sorted(found.values()) == [NOW + 60] * others + [NOW + 100]
    assert (await spool.lanes())[SES] == then


# --- folding -----------------------------------------------------------------------------------------------------


def folded(serial: int, into: str) -> Submission:
    made = submission(serial, recipients=["a@example.org", "b@example.org"])
    ended = tuple(replace(each, state=State.FAILED, reason="folded", reply=f"250 folded into {into}") for each in made.deliveries)
    return replace(made, deliveries=ended)


def digest_of(serial: int) -> Callable[[int], Submission]:
    return lambda n: submission(serial, content=b"told of %d" % n, due=NOW + 90)


async def test_what_is_folded_ends_at_once_and_the_digest_tells_of_it(spool: Store) -> None:
    name = digest_of(100)(1).message.id
    for n in (1, 2, 3):
        assert await spool.fold(folded(n, name), digest_of(100)) == n
        assert await spool.content(name) == b"told of %d" % n
    one = await spool.show(folded(2, name).message.id)
    assert one is not None
    assert {(each.delivery.state, each.delivery.reason, each.end) for each in one.deliveries} == {
        (State.FAILED, "folded", "suppressed")
    }
    with pytest.raises(SpoolError):
        await spool.content(one.message.id)
    stats = await spool.stats()
    assert (stats.messages, stats.bytes, stats.counts) == (1, len(b"told of 3"), {("ses", State.QUEUED): 1})
    assert (await spool.claim(SES, 9, NOW)).next_due == NOW + 90
    assert [each.id.message for each in (await spool.claim(SES, 9, NOW + 90)).deliveries] == [name]


async def test_a_digest_that_does_not_wait_takes_no_more(spool: Store) -> None:
    name = digest_of(100)(1).message.id
    await spool.fold(folded(1, name), digest_of(100))
    await spool.claim(SES, 9, NOW + 90)
    with pytest.raises(Superseded):
        await spool.fold(folded(2, name), digest_of(100))
    await spool.unclaim(ids(digest_of(100)(1)))
    await spool.change("hold", Filter(ids=(name,)), NOW)
    with pytest.raises(Superseded):
        await spool.fold(folded(2, name), digest_of(100))
    assert await spool.show(folded(2, name).message.id) is None
    assert await spool.content(name) == b"told of 1"


async def test_what_cannot_be_folded_leaves_the_digest_as_it_was(spool: Store) -> None:
    name = digest_of(100)(1).message.id
    await spool.fold(folded(1, name), digest_of(100))
    with pytest.raises(SpoolError):
        await spool.fold(folded(1, name), digest_of(100))  # the queue id is taken
    assert await spool.content(name) == b"told of 1"
    assert (await spool.stats()).bytes == len(b"told of 1")
    assert await spool.fold(folded(2, name), digest_of(100)) == 2


# --- what caps count ---------------------------------------------------------------------------------------------


async def test_what_was_sent_is_counted_by_site_and_slot(spool: Store) -> None:
    assert await spool.sent_counts() == []
    await spool.count_sent([("a", 1, 5), ("b", 1, 7), ("a", 2, 1)], 0)
    await spool.count_sent([("a", 2, 4)], 2)
    assert await spool.sent_counts() == [("a", 2, 4), ("b", 1, 7)]


# --- lanes, age, placement, forgetting ---------------------------------------------------------------------------


async def test_lanes_name_what_waits_with_its_earliest_due_time(spool: Store) -> None:
    for serial, (lane, due, priority) in enumerate(
        [
            (SES, NOW + 9, Priority.HIGH),
            (SES, NOW + 5, Priority.LOW),
            (MX, NOW + 3, Priority.NORMAL),
            (MX, NOW + 1, Priority.NORMAL),
        ]
    ):
        await spool.accept(submission(serial, lane=lane, due=due, priority=priority))
    assert await spool.lanes() == {SES: NOW + 5, MX: NOW + 1}
    await spool.claim(MX, 1, NOW + 1)
    assert await spool.lanes() == {SES: NOW + 5, MX: NOW + 3}


async def test_many_lanes(spool: Store) -> None:
    lanes = [LaneKey("direct", f"d{n}.example") for n in range(600)]
    await asyncio.gather(*(spool.accept(submission(n, lane=lane, due=NOW + n)) for n, lane in enumerate(lanes)))
    assert await spool.lanes() == {lane: NOW + n for n, lane in enumerate(lanes)}


async def test_lanes_of_many_sites_and_priorities(spool: Store) -> None:
    lanes = [LaneKey("direct", f"d{n}.example") for n in range(20)]
    made = [
        submission(n, lane=lane, site=f"s{site}", priority=priority, due=NOW + n)
        for n, (lane, site, priority) in enumerate(product(lanes, range(40), Priority))
    ]
    await asyncio.gather(*(spool.accept(each) for each in made))
    assert await spool.lanes() == {lane: NOW + 120 * n for n, lane in enumerate(lanes)}


async def test_aged_pages_through_old_and_unclaimed(spool: Store) -> None:
    for serial in range(1, 8):
        await spool.accept(submission(serial, lane=MX if serial % 2 else SES, recipients=["a@example.org", "b@example.org"]))
    await spool.claim(MX, 2, NOW)
    await spool.accept(submission(0, state=State.IN_FLIGHT))
    seen: list[DeliveryId] = []
    while page := await spool.aged(NOW + 6, seen[-1] if seen else None, 3):
        seen += [each.id for each in page]
    assert seen == [each for serial in (2, 3, 4, 5) for each in ids(submission(serial, recipients=["a@b", "c@d"]))]


async def test_rekey_places_anew_what_waits_in_order_of_arrival(spool: Store) -> None:
    for serial in range(1, 8):
        await spool.accept(submission(serial, lane=MX if serial % 2 else SES))
    claimed = (await spool.claim(SES, 1, NOW)).deliveries
    flying = submission(8, lane=MX, state=State.IN_FLIGHT)
    await spool.accept(flying)
    new = Placement("new", LaneKey("other", "host"), Priority.HIGH, "else")
    seen: list[str] = []

    def place(delivery: object) -> Placement:
        seen.append(delivery.id.message)  # type: ignore[attr-defined]
        return new

    after, rounds = None, 0
    while True:
        after = await spool.rekey(place, after, 3)
        rounds += 1
        if after is None:
            break
    assert rounds == 3
    assert sorted(set(seen)) == [submission(serial).message.id for serial in (1, 3, 4, 5, 6, 7)]
    claim = await spool.claim(new.lane, 10, NOW)
    assert [each.placement for each in claim.deliveries] == [new] * 6
    assert [each.id for each in await spool.open_attempts(9)] == ids(flying)
    await spool.unclaim([each.id for each in claimed])
    assert (await spool.stats()).counts == {("other", State.QUEUED): 6, ("ses", State.QUEUED): 1, ("direct", State.IN_FLIGHT): 1}


async def test_rekey_of_what_an_operator_chose_looks_at_nothing_else(spool: Store) -> None:
    made = [submission(serial, lane=MX if serial % 2 else SES) for serial in range(1, 9)]
    for each in made:
        await spool.accept(each)
    chosen = Filter(ids=tuple(each.message.id for each in made[:5]))
    assert await spool.change("retry", chosen, NOW, "ses") == 5  # of which two wait for it already
    seen: list[str | None] = []

    def place(delivery: Delivery) -> Placement:
        seen.append(delivery.via)
        return replace(delivery.placement, lane=SES)

    for _ in range(2):
        after = None
        while True:
            after = await spool.rekey(place, after, 2, chosen=True)
            if after is None:
                break
        assert seen == ["ses"] * 3, "and the second time nothing is left"
    assert (await spool.stats()).counts == {("ses", State.QUEUED): 7, ("direct", State.QUEUED): 1}


async def test_purge_forgets_what_came_while_the_clock_was_ahead(spool: Store) -> None:
    for serial in range(1, 4):
        made = submission(serial, state=State.IN_FLIGHT, clock=NOW + 10 * 365 * 86_400)
        await spool.accept(made)
        await spool.settle(settlement(made, delivered(f"id-{serial}")))
    assert await spool.purge(NOW + 3, NOW + 9, 5) == 2
    assert await spool.purge(NOW + 3, NOW + 9, 5) == 0
    assert len(await spool.recent(9)) == 1


async def test_purge_forgets_what_has_ended_and_is_old(spool: Store) -> None:
    for serial in range(1, 7):
        made = submission(serial, state=State.IN_FLIGHT, message_id=f"<{serial}@x>")
        await spool.accept(made)
        await spool.settle(settlement(made, held() if serial == 2 else delivered(f"id-{serial}")))
    assert await spool.purge(NOW + 5, NOW + 9, 2) == 2
    assert await spool.purge(NOW + 5, NOW + 9, 2) == 1
    assert await spool.purge(NOW + 5, NOW + 9, 2) == 0
    assert [record.message.id for record in await spool.recent(9)] == [submission(serial).message.id for serial in (6, 5, 2)]
    assert await spool.find("id-3") == []
    assert await spool.find("1@x") == []
    assert await spool.find("id-5") == [submission(5).message.id]
    assert await spool.show(submission(1).message.id) is None


# --- the end -----------------------------------------------------------------------------------------------------


async def test_a_closed_store_says_so(spool: Store) -> None:
    made = submission(1)
    await spool.accept(made)
    await spool.ping()
    await spool.close()
    await spool.close()
    calls = [
        spool.accept(submission(2)), spool.accept(submission(2, content=b"x" * (THRESHOLD + 1))), spool.claim(SES, 1, NOW),
        spool.unclaim([]), spool.open_attempt(ids(made), NOW), spool.settle(settlement(made, delivered())),
        spool.postpone(ids(made), NOW, None), spool.rekey(lambda each: each.placement, None, 1), spool.content(made.message.id),
        spool.open_attempts(1), spool.lanes(), spool.aged(NOW, None, 1), spool.purge(NOW, NOW, 1), spool.ping(),
        spool.list(Filter(), NOW, None, 1), spool.show(made.message.id), spool.find("x"), spool.recent(1),
        spool.change("retry", Filter(sender="x"), NOW), spool.stats(), spool.sent_counts(), spool.count_sent([("a", 1, 1)], 0),
        spool.fold(folded(3, "x"), digest_of(4)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(SpoolError):
            await call
