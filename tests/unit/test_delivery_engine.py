"""The engine over the spool in memory: what reaches which way out, when, and what the store says afterwards."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from batches import Octets, filed
from engine_rig import CONTENT, OK, Rig, ScriptedTransport
from sesrelay.delivery import fresh, lane, pauses, pump, scheduler, slots
from sesrelay.delivery.attempt import READ_ALONG
from sesrelay.delivery.lane import ROOM, Ready
from sesrelay.delivery.room import LARGE, PIECES, STREAMED
from sesrelay.mail.delivery import Batch, DeliveryId, LaneKey, State
from sesrelay.mail.envelope import Recipient
from sesrelay.mail.filed import Filed
from sesrelay.mail.lineends import Canonical
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.budget import COPIES_OUT, ByteBudget
from sesrelay.policy.pace import Pace
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Claim, Content, ContentGone, Filter, NoSpace, Opened, Settlement, SpoolError, Submission

LATER, NO = Reply(451, "4.2.0", "later"), Reply(550, "5.1.1", "no such user")


async def test_a_message_goes_out_as_it_came_with_one_received_line() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org", "c@example.net")
    await rig.quiet()
    ((recipients, content),) = way.seen
    assert recipients == ("b@example.org", "c@example.net")
    assert content.endswith(CONTENT)
    assert content.startswith(
        b"Received: from client ([127.0.0.1])\r\n\tby relay.example.net (sesrelay) with ESMTP id " + queue_id.encode()
    )
    assert await rig.states(queue_id) == [State.DELIVERED, State.DELIVERED]
    record = await rig.record(queue_id)
    assert [event.event for event in record.events][:2] == ["accepted", "routed"]
    assert record.deliveries[0].remote_id == "remote-1"


@pytest.mark.parametrize(
    ("sender", "header", "made", "receipts"),
    [
        ("a@example.com", "Subject: hi", ["From: a@example.com"], ("added From",)),
        ("a@example.com", "From: root", ["From: root@relay.example.net"], ("completed From",)),
        (
            "a@example.com",
            "From: x@example.com\r\nTo: root",
            ["From: x@example.com", "To: root@relay.example.net"],
            ("completed To",),
        ),
        ("a@example.com", "From: x@example.com", ["From: x@example.com"], ()),
        ("", "Subject: hi", [], ()),
    ],
)
async def test_a_header_gets_what_it_wants_for_and_the_trace_says_so(
    sender: str, header: str, made: list[str], receipts: tuple[str, ...]
) -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org", sender=sender, content=header.encode() + b"\r\n\r\nBody\r\n")
    await rig.quiet()
    head = way.seen[0][1].partition(b"\r\n\r\n")[0].decode().splitlines()
    assert [line for line in head if line.startswith(("From:", "To:"))] == made
    record = await rig.record(queue_id)
    assert record.message.changes == record.events[0].changes == receipts
    assert record.message.header_from == tuple(line.partition(" ")[2] for line in made[:1])


async def test_what_came_by_a_file_and_is_small_without_its_header_goes_out_at_once() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    head, _, body = CONTENT.partition(b"\r\n\r\n")
    private = b"Bcc: c@example.net\r\n" + head + b"\r\n\r\n"
    await rig.submit("b@example.org", content=Filed(private, Octets(body), 0, len(body)))  # type: ignore[arg-type]
    await rig.quiet()
    ((_, content),) = way.seen
    assert content.endswith(CONTENT)
    assert b"Bcc" not in content


async def test_the_commit_of_acceptance_opens_the_attempt() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    seen: list[State] = []
    accept = rig.spool.accept

    async def watch(submission: Submission, *, claimed: bool = False) -> None:
        seen.extend(delivery.state for delivery in submission.deliveries)
        assert not way.seen
        await accept(submission, claimed=claimed)

    rig.spool.accept = watch  # type: ignore[method-assign]
    way.bucket = Pace(1.0)
    await rig.submit("b@example.org")
    await rig.submit("b@example.org")
    assert seen == [State.IN_FLIGHT, State.QUEUED]


async def test_a_message_waited_once_for_its_first_attempt_whatever_comes_after() -> None:
    down = [True]
    down_for = Deferred(Reply(421, "4.4.1", "down"), Scope.NEXTHOP, PauseReason.UNAVAILABLE)
    rig = Rig(ScriptedTransport("t", answer=lambda recipient: down_for if down[0] else Delivered(OK, "remote-1")))
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    for _ in range(3):  # which cost it no attempt
        await rig.pass_time(1_000.0)
    down[0] = False
    await rig.pass_time(1_000.0)
    assert await rig.states(queue_id) == [State.DELIVERED]
    waited = [told[4] for told in rig.witness.events("attempted")]
    assert len(waited) > 2
    assert [one is not None for one in waited] == [True] + [False] * (len(waited) - 1)


def test_what_lanes_keep_of_fresh_content_is_bounded() -> None:
    kept, content = fresh.Fresh(), Canonical(b"x" * LARGE)
    ready = Ready(None, None, content)  # type: ignore[arg-type]
    assert kept.worth(Canonical(b"x" * (LARGE + 1))) is None
    for _ in range(fresh.FRESH_BYTES // LARGE):
        assert kept.worth(content) is content
        kept.add(ready)
    assert kept.octets <= fresh.FRESH_BYTES
    assert kept.worth(content) is None
    kept.drop(ready)
    assert kept.worth(content) is content


async def test_large_content_waits_for_memory_before_its_attempt_is_on_record() -> None:
    content = CONTENT + b"x" * LARGE + b"\r\n"
    budget = ByteBudget(2 * COPIES_OUT * len(content) - 1)  # for one of them
    way = ScriptedTransport("t", gate=asyncio.Event())
    rig = Rig(way, memory=budget)
    first, second = await rig.submit("b@example.org", content=content), await rig.submit("b@example.org", content=content)
    await rig.quiet()
    assert (await rig.states(first), await rig.states(second)) == ([State.IN_FLIGHT], [State.QUEUED])
    small = await rig.submit("b@example.org")  # is not held up
    await rig.quiet()
    assert await rig.states(small) == [State.IN_FLIGHT]
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert [await rig.states(one) for one in (first, second, small)] == [[State.DELIVERED]] * 3
    assert budget.outgoing.used == 0
    assert way.most_under_way == 2


async def test_what_leaves_from_its_file_takes_its_pieces_of_the_memory_and_no_more() -> None:
    budget, way = ByteBudget(1 << 30), ScriptedTransport("t", gate=asyncio.Event())
    rig = Rig(way, memory=budget)

    content, read_whole = rig.spool.content, []

    async def stored(message: str) -> Filed:
        return filed(await content(message))

    async def whole(message: str) -> object:
        read_whole.append(message)
        return await content(message)

    rig.spool.filed = stored  # type: ignore[method-assign, assignment]
    rig.spool.content = whole  # type: ignore[method-assign, assignment]
    await rig.submit("b@example.org", content=CONTENT + b"x" * STREAMED + b"\r\n")
    await rig.quiet()
    assert budget.outgoing.used == PIECES
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert budget.outgoing.used == 0
    assert not read_whole
    assert len(way.seen) == 1


async def test_batches_keep_to_the_limit() -> None:
    way = ScriptedTransport("t", batch_limit=50)
    rig = Rig(way)
    await rig.submit(*(f"r{n}@example.org" for n in range(120)))
    await rig.quiet()
    assert sorted(len(recipients) for recipients, _ in way.seen) == [20, 50, 50]


async def test_private_headers_stay_and_the_receipt_says_so() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org", content=b"Bcc: x@example.org\r\n" + CONTENT)
    await rig.quiet()
    assert b"Bcc" not in way.seen[0][1]
    assert (await rig.record(queue_id)).events[0].changes == ("removed Bcc",)


async def test_greylisting_is_tried_again_on_schedule() -> None:
    answers: list[Outcome] = [Deferred(LATER), Deferred(LATER), Delivered(OK)]
    way = ScriptedTransport("t", answer=lambda recipient: answers.pop(0))
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    assert (len(way.seen), await rig.states(queue_id)) == (1, [State.QUEUED])
    await rig.pass_time(29.0)
    assert len(way.seen) == 1
    await rig.pass_time(2.0)
    assert len(way.seen) == 2
    await rig.pass_time(119.0)
    assert len(way.seen) == 2
    await rig.pass_time(2.0)
    assert await rig.states(queue_id) == [State.DELIVERED]
    assert (await rig.record(queue_id)).deliveries[0].delivery.attempts == 3


async def test_one_refused_recipient_gives_one_bounce_and_the_others_arrive() -> None:
    way = ScriptedTransport("t", answer=lambda to: Failed(NO, remedy="Ask them.") if to.startswith("bad") else Delivered(OK))
    rig = Rig(way)
    queue_id = await rig.submit("bad1@example.org", "good@example.org", "bad2@example.org")
    await rig.quiet()
    assert await rig.states(queue_id) == [State.FAILED, State.DELIVERED, State.FAILED]
    (recipients, bounce) = way.seen[1]
    assert recipients == ("a@example.com",)
    assert bounce.count(b"Final-Recipient: rfc822; bad") == 2
    assert b"What to do: Ask them." in bounce
    assert len(way.seen) == 2
    report = next(each for each in await rig.everything() if each.message.report)
    assert (report.message.sender, report.message.header_from) == ("", ("mailer-daemon@example.com",))


async def test_a_bounce_is_routed_by_the_domain_it_reports_to() -> None:
    ses = ScriptedTransport("ses", answer=lambda to: Failed(NO) if to == "bad@example.org" else Delivered(OK))
    direct = ScriptedTransport("direct")
    rig = Rig(direct, ses, rules={"example.com": ("ses",)})
    await rig.submit("bad@example.org")
    await rig.quiet()
    assert [recipients for recipients, _ in ses.seen] == [("bad@example.org",), ("a@example.com",)]
    assert not direct.seen


async def test_a_message_of_the_null_sender_that_fails_waits_for_the_operator() -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Failed(NO)))
    queue_id = await rig.submit("bad@example.org", sender="")
    await rig.quiet()
    (only,) = await rig.everything()
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert only.message.id == queue_id, "no report on a report of others"
    assert (delivery.delivery.state, delivery.delivery.reason) == (State.HELD, "double_bounce")


@pytest.mark.parametrize("scope", [Scope.NEXTHOP, Scope.TRANSPORT])
async def test_an_expired_key_pauses_the_lane_costs_no_attempt_and_never_bounces(scope: Scope) -> None:
    bad = [True]
    expired = Deferred(LATER, scope, PauseReason.CREDENTIALS, "Renew the key.")
    way = ScriptedTransport("t", answer=lambda to: expired if bad[0] else Delivered(OK), concurrency=1)
    rig = Rig(way, retry=RetryPolicy((30.0,), max_age=1e6, delay_warning=None))
    ids = [await rig.submit(f"b{n}@example.org") for n in range(20)]
    await rig.quiet()
    assert len(way.seen) == 1
    assert [pause.remedy for pause in rig.witness.pauses] == ["Renew the key."]
    for _ in range(50):
        await rig.pass_time(100.0)
    assert {(await rig.record(each)).deliveries[0].delivery.attempts for each in ids} == {0}
    assert len(way.seen) <= 52, "one probe a pause, not one a message"
    bad[0] = False
    for _ in range(4):
        await rig.pass_time(100.0)
    assert await rig.waiting() == 0
    assert not any(each.message.report for each in await rig.everything())
    assert rig.witness.events("resumed")


async def test_other_lanes_go_on_while_one_is_paused() -> None:
    down = Deferred(LATER, Scope.RECIPIENT_DOMAIN)
    way = ScriptedTransport("t", answer=lambda to: down if to.endswith("slow.example") else Delivered(OK), by_domain=True)
    rig = Rig(way)
    for n in range(10):
        await rig.submit(f"{n}@slow.example", f"{n}@quick.example")
    await rig.quiet()
    assert sum("quick" in recipients[0] for recipients, _ in way.seen) == 10
    assert await rig.waiting() == 10


async def test_an_unverified_sender_pauses_that_sender_alone() -> None:
    rejected = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.")
    way = ScriptedTransport("t", concurrency=1)
    rig = Rig(way)
    way.answer = lambda to: rejected if to.startswith("from-bad") else Delivered(OK)
    bad = [await rig.submit(f"from-bad{n}@example.org", sender="x@bad.example") for n in range(5)]
    good = [await rig.submit(f"ok{n}@example.org", sender="x@good.example") for n in range(5)]
    await rig.quiet()
    assert [await rig.states(each) for each in good] == [[State.DELIVERED]] * 5
    assert [await rig.states(each) for each in bad] == [[State.QUEUED]] * 5
    assert sum(recipients[0].startswith("from-bad") for recipients, _ in way.seen) == 1
    way.answer = lambda to: Delivered(OK)
    for _ in range(3):
        await rig.pass_time(400.0)
    assert [await rig.states(each) for each in bad] == [[State.DELIVERED]] * 5


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (Scope.TRANSPORT, (None, None)),
        (Scope.NEXTHOP, ("hop-t", None)),
        (Scope.RECIPIENT_DOMAIN, ("hop-t", None)),
        (Scope.SENDER_DOMAIN, ("hop-t", "example.com")),
    ],
)
async def test_a_pause_is_shown_as_wide_as_it_is_and_is_not_set_anew_by_what_began_before(
    scope: Scope, shown: tuple[str | None, str | None]
) -> None:
    way = ScriptedTransport("t", gate=asyncio.Event(), answer=lambda to: Deferred(LATER, scope, PauseReason.CONFIGURATION))
    rig = Rig(way)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(3)]
    await rig.quiet()
    rig.clock.advance(1.0)
    assert way.under_way == 3
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    (pause,) = rig.scheduler.pauses
    assert (pause.nexthop, pause.domain) == shown
    assert [pause.until for pause in rig.witness.pauses] == [pause.until], "three answers of one obstacle are one pause"
    dues = [(await rig.record(each)).deliveries[0].delivery.due for each in ids]
    assert dues == [pause.until] * 3


@pytest.mark.parametrize(
    ("scope", "shown"), [(Scope.NEXTHOP, ["t", "u"]), (Scope.RECIPIENT_DOMAIN, ["t"]), (Scope.TRANSPORT, ["t"])]
)
async def test_a_pause_of_a_nexthop_is_told_of_each_transport_that_waits_behind_it(scope: Scope, shown: list[str]) -> None:
    """As two transports of one account do: for whoever looks at the other one, it is that one's mail which waits."""
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER, scope, PauseReason.CREDENTIALS), by_domain=True)
    other, idle = ScriptedTransport("u", by_domain=True), ScriptedTransport("v", by_domain=True)
    rig = Rig(way, other, idle, rules={"other.example": ("u",), "idle.example": ("v",)})
    await rig.submit("b@example.org")
    await rig.quiet()
    await rig.submit("b@example.org", sender="a@other.example")
    await rig.submit("b@elsewhere.example", sender="a@idle.example")
    await rig.quiet()
    assert len(other.seen) == len(shown) % 2
    assert [pause.transport for pause in rig.scheduler.paused()] == shown
    assert list(rig.scheduler.waits()) == list(rig.scheduler.paused())
    assert [pause.transport for pause in rig.witness.pauses] == ["t"], "it began once"


async def test_one_batch_finds_out_whether_a_sender_domain_may_send_again() -> None:
    unverified = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.")
    way = ScriptedTransport("t", answer=lambda to: unverified)
    rig = Rig(way)
    ids = [await rig.submit(f"b{n}@example.org", sender="x@bad.example") for n in range(5)]
    await rig.quiet()
    for answer in (unverified, Delivered(OK)):
        way.gate = asyncio.Event()
        await rig.pass_time(2000.0)
        assert way.under_way == 1, "the others wait for what it finds"
        way.answer = lambda to, answer=answer: answer  # type: ignore[misc]
        way.gate.set()
        await rig.quiet()
    await rig.pass_time(400.0)
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 5


async def test_a_retry_that_finds_a_sender_domain_mended_brings_all_of_it_forward() -> None:
    unverified = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.")
    way = ScriptedTransport("t", answer=lambda to: unverified, concurrency=1)
    rig = Rig(way)
    ids = [await rig.submit(f"b{n}@example.org", sender="x@bad.example") for n in range(5)]
    await rig.quiet()
    away = await rig.submit("c@example.net", sender="x@other.example")
    await rig.quiet()
    tried = len(way.seen)

    async def retry() -> None:
        assert await rig.spool.change("retry", Filter(ids=(ids[3],)), rig.clock.wall()) == 1
        rig.scheduler.hurry()
        await rig.scheduler.refresh()
        await rig.quiet()

    await retry()
    assert len(way.seen) == tried + 1, "one finds out that it is as it was, and the others wait on"
    way.answer = lambda to: Delivered(OK)
    await retry()
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 5
    assert await rig.states(away) == [State.QUEUED], "which has a pause of its own"


async def test_many_domains_that_are_mended_at_once_are_looked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    unverified = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify it.")
    rig = Rig(way := ScriptedTransport("t", answer=lambda to: unverified))
    ids = [await rig.submit(f"b{n}@example.org", sender=f"x@{n % 10}.example") for n in range(30)]
    await rig.quiet()
    looks, rekey = 0, rig.spool.rekey

    async def counted(*args: Any, **options: Any) -> DeliveryId | None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return await rekey(*args, **options)

    monkeypatch.setattr(rig.spool, "rekey", counted)
    way.answer = lambda to: Delivered(OK)
    assert await rig.spool.change("retry", Filter(ids=tuple(ids[:10])), rig.clock.wall()) == 10
    rig.scheduler.hurry()
    await rig.scheduler.refresh()
    await rig.quiet()
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 30
    assert 1 <= looks <= 3, "not one for each"


async def test_ambiguous_is_repeated_there_only_and_held_after_three() -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.MESSAGE, ambiguous=True))
    other = ScriptedTransport("u")
    rig = Rig(way, other, rules={"example.com": ("t", "u")})
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    await rig.pass_time(59.0)
    assert len(way.seen) == 1
    await rig.pass_time(10.0)
    assert len(way.seen) == 2
    await rig.pass_time(1000.0)
    assert (len(way.seen), len(other.seen)) == (3, 0)
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.reason) == (State.HELD, "in_doubt")


async def test_a_transport_that_raises_is_in_doubt_and_told_of() -> None:
    def broken(to: str) -> Outcome:
        raise KeyError(to)

    way = ScriptedTransport("t", answer=broken)
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    for _ in range(4):
        await rig.pass_time(1000.0)
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.reason) == (State.HELD, "in_doubt")
    assert len(rig.witness.events("trouble")) == 3
    events = [(event.event, event.outcome) for event in (await rig.record(queue_id)).events]
    assert events[2:] == [*[("attempt", "ambiguous")] * 3, ("held", "in_doubt")]


async def test_expiry_bounces_what_the_recipient_refused_and_holds_what_was_ours() -> None:
    for scope, state in ((Scope.RECIPIENT, State.FAILED), (Scope.NEXTHOP, State.HELD)):
        way = ScriptedTransport(
            "t", answer=lambda to, scope=scope: Deferred(LATER, scope) if to == "b@example.org" else Delivered(OK)
        )  # type: ignore[misc]
        rig = Rig(way, retry=RetryPolicy((100.0,), max_age=250.0, delay_warning=None))
        queue_id = await rig.submit("b@example.org")
        for _ in range(30):
            await rig.pass_time(60.0)
        assert await rig.states(queue_id) == [state]
        assert len(await rig.everything()) == (2 if state is State.FAILED else 1)


async def test_failover_goes_to_the_next_transport_after_the_pause_has_lasted() -> None:
    first = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, PauseReason.UNAVAILABLE), failover_after=600.0)
    second = ScriptedTransport("u")
    rig = Rig(first, second, rules={"example.com": ("t", "u")})
    early = await rig.submit("b@example.org")
    await rig.quiet()
    await rig.pass_time(300.0)
    assert not second.seen
    for _ in range(4):
        await rig.pass_time(150.0)
    assert await rig.states(early) == [State.DELIVERED]
    late = await rig.submit("c@example.org")
    await rig.quiet()
    assert await rig.states(late) == [State.DELIVERED]
    assert len(second.seen) == 2


async def test_a_route_without_alternative_stays_where_it_is() -> None:
    first = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP))
    second = ScriptedTransport("u")
    rig = Rig(first, second)
    await rig.submit("b@example.org")
    for _ in range(20):
        await rig.pass_time(200.0)
    assert not second.seen
    assert await rig.waiting() == 1


async def test_concurrency_is_kept() -> None:
    way = ScriptedTransport("t", concurrency=3)
    rig = Rig(way)
    for n in range(30):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()
    assert len(way.seen) == 30
    assert way.most_under_way <= 3


async def test_pace_is_kept_and_used() -> None:
    way = ScriptedTransport("t")
    way.bucket = Pace(10.0, at=1_000.0)
    rig = Rig(way)
    for n in range(50):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()
    assert len(way.seen) == 1
    for _ in range(49):
        await rig.pass_time(0.1)
    assert 48 <= len(way.seen) <= 50


async def test_a_reload_places_what_waits_anew() -> None:
    old = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, PauseReason.CREDENTIALS))
    rig = Rig(old)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(10)]
    await rig.quiet()
    new = ScriptedTransport("u")
    await rig.scheduler.swap(rig.snapshot(new))
    await rig.pass_time(500.0)
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 10
    assert len(new.seen) == 10


async def test_mail_whose_transport_is_gone_is_held_for_the_operator() -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Deferred(LATER)))
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    keep = ScriptedTransport("u")
    snapshot = rig.snapshot(keep, rules={"example.com": ("gone",)})
    await rig.scheduler.swap(snapshot)
    await rig.pass_time(60.0)
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.reason) == (State.HELD, "no_route")
    await rig.scheduler.swap(rig.snapshot(keep))
    assert await rig.spool.change("release", Filter(ids=(queue_id,)), rig.clock.wall()) == 1
    await rig.scheduler.refresh()
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]


async def test_local_mail_without_an_alias_is_held_from_the_start() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way)
    queue_id = await rig.submit(Recipient("bob@relay.example.net", hold="no_alias"), "c@example.org")
    await rig.quiet()
    assert await rig.states(queue_id) == [State.HELD, State.DELIVERED]


async def test_what_waits_for_an_alias_follows_one_that_is_named_later() -> None:
    way = ScriptedTransport("t", by_domain=True)
    rig = Rig(way)
    bob = Recipient("bob@relay.example.net", hold="no_alias")
    queue_id = await rig.submit(bob)
    await rig.quiet()
    local = LocalMail("relay.example.net", "relay.example.net", {"bob": "bob@example.org"})
    await rig.scheduler.swap(replace(rig.snapshot(way), local=local))
    await rig.spool.change("release", Filter(ids=(queue_id,)), rig.clock.wall())
    await rig.scheduler.refresh()
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]
    ((addresses, _),) = way.seen
    assert addresses == ("bob@example.org",)
    (sent,) = (await rig.record(queue_id)).deliveries
    assert sent.delivery.placement.lane.nexthop == "example.org"


async def test_the_hold_transport_holds() -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Held(LATER, "hold")))
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.reason, delivery.delivery.attempts) == (State.HELD, "hold", 0)


@pytest.mark.parametrize(("error", "code"), [(SpoolError("io"), "451"), (NoSpace("full"), "452")])
async def test_what_cannot_be_stored_is_refused_for_now_and_its_tokens_come_back(error: SpoolError, code: str) -> None:
    way = ScriptedTransport("t")
    way.bucket = Pace(1.0, at=1_000.0)
    rig = Rig(way)

    async def broken(submission: Submission, *, claimed: bool = False) -> None:
        raise error

    accept, rig.spool.accept = rig.spool.accept, broken  # type: ignore[method-assign]
    assert (await rig.submit("b@example.org")).startswith(code)
    rig.spool.accept = accept  # type: ignore[method-assign]
    await rig.submit("b@example.org")
    await rig.quiet()
    assert len(way.seen) == 1
    assert rig.scheduler.in_flight == 0


@pytest.mark.parametrize("lanes", [1, 3])
async def test_an_outcome_is_stored_at_once_where_mail_waits_for_its_slot(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ALL", 1)
    rig = Rig(ScriptedTransport("t", by_domain=True))
    settle, patience = rig.spool.settle, []

    async def noting(settlement: Settlement, *, patient: bool = False) -> Mapping[DeliveryId, float]:
        patience.append(patient)
        return await settle(settlement, patient=patient)

    rig.spool.settle = noting  # type: ignore[method-assign]
    for n in range(3):
        await rig.submit(f"b@d{n % lanes}.example.org")
    await rig.quiet()
    assert patience == [False, False, True]


async def test_an_outcome_that_cannot_be_stored_stops_sending_until_it_can() -> None:
    way = ScriptedTransport("t", concurrency=2)
    rig = Rig(way)
    settle = rig.spool.settle
    broken = [True]

    async def flaky(settlement: object, **how: bool) -> object:
        if broken[0]:
            raise SpoolError("full")
        return await settle(settlement, **how)  # type: ignore[arg-type]

    async def no_wait(seconds: float) -> None:
        await rig.quiet()

    rig.spool.settle = flaky  # type: ignore[method-assign,assignment]
    rig.scheduler._pump.attempts = replace(rig.scheduler.attempts, pause=no_wait)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(10)]
    await rig.quiet()
    await rig.quiet()
    assert len(way.seen) <= 2, "nothing new is sent while outcomes cannot be stored"
    broken[0] = False
    for _ in range(10):
        await rig.quiet()
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 10
    assert len(way.seen) == 10, "nothing was sent twice"


async def test_what_cannot_be_given_back_to_the_store_waits_on_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "STALL", 0.0)
    way = ScriptedTransport("t", concurrency=1, gate=asyncio.Event())
    rig = Rig(way)
    for n in range(4):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()

    async def broken(ids: object) -> None:
        raise SpoolError("full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.spool, "unclaim", broken)
        with pytest.raises(SpoolError):
            await rig.scheduler.move()
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert sorted(to for to, _ in way.seen) == [(f"b{n}@example.org",) for n in range(4)]
    assert await rig.waiting() == 0


async def test_what_has_to_make_way_while_the_store_fails_waits_on_and_the_store_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "ROOM", 4)
    way = ScriptedTransport("t", concurrency=1, gate=asyncio.Event())
    rig = Rig(way, rules={"a.example": ("t",), "b.example": ("t",)})
    asked, unclaim = 0, rig.spool.unclaim

    async def broken(ids: object) -> None:
        nonlocal asked
        asked += 1
        raise SpoolError("full")

    monkeypatch.setattr(rig.spool, "unclaim", broken)
    for n in range(9):
        await rig.submit(f"b{n}@example.org", sender="x@a.example")
    for n in range(9, 12):
        await rig.submit(f"b{n}@example.org", sender="x@b.example")
    await rig.quiet()
    assert 0 < asked <= 3, "once for each that had to make way"
    monkeypatch.setattr(rig.spool, "unclaim", unclaim)
    rig.scheduler._pump.stall(False)
    assert way.gate is not None
    way.gate.set()
    for _ in range(9):
        await rig.quiet()
    assert sorted(to for to, _ in way.seen) == sorted((f"b{n}@example.org",) for n in range(12))


async def test_what_a_failing_store_does_not_hand_out_is_asked_for_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER))
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    way.answer = lambda to: Delivered(OK)

    async def broken(*asked: object, **more: object) -> Claim:
        raise SpoolError("input/output error")

    rig.clock.advance(40.0)
    with monkeypatch.context() as patch:
        patch.setattr(rig.spool, "claim", broken)
        rig.scheduler._pump.run_all()
        await rig.quiet()
    rig.scheduler._pump.run_all()
    await rig.quiet()
    assert len(way.seen) == 1, "nothing is begun before the store is asked again"
    rig.scheduler._pump.stall(False)
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]


async def test_deleted_and_held_mail_in_a_lane_does_not_leave() -> None:
    way = ScriptedTransport("t")
    way.bucket = Pace(1.0, at=1_000.0, tokens=-5.0)
    rig = Rig(way)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(3)]
    await rig.quiet()
    assert not way.seen
    assert await rig.spool.change("delete", Filter(ids=(ids[0],)), rig.clock.wall()) == 1
    assert await rig.spool.change("hold", Filter(ids=(ids[1],)), rig.clock.wall()) == 1
    for _ in range(20):
        await rig.pass_time(1.0)
    assert [recipients for recipients, _ in way.seen] == [("b2@example.org",)]
    assert await rig.states(ids[1]) == [State.HELD]


async def test_drain_finishes_what_is_under_way_and_starts_nothing() -> None:
    import asyncio

    way = ScriptedTransport("t", concurrency=2, gate=asyncio.Event())
    rig = Rig(way)
    for n in range(6):
        await rig.submit(f"b{n}@example.org")
    await rig.quiet()
    draining = asyncio.create_task(rig.scheduler.drain(5.0))
    await rig.quiet()
    assert way.gate is not None
    way.gate.set()
    assert await draining == 0
    assert len(way.seen) == 2
    assert await rig.waiting() == 4


async def test_open_attempts_are_in_doubt_after_a_crash() -> None:
    import asyncio

    way = ScriptedTransport("t", gate=asyncio.Event())
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    await rig.scheduler.drain(0.0)
    again = Rig(ScriptedTransport("t"))
    again.spool, again.clock = rig.spool, rig.clock
    from sesrelay.delivery.scheduler import Scheduler

    scheduler = Scheduler(rig.spool, again.snapshot(ScriptedTransport("t")), rig.clock, again.witness)
    await scheduler.start()
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.doubts, delivery.delivery.pinned) == (State.QUEUED, 1, "t")
    assert delivery.delivery.due >= rig.clock.wall() + 60.0


async def test_a_disk_that_is_full_at_the_start_keeps_nobody_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Rig(ScriptedTransport("t", concurrency=1, gate=asyncio.Event()))
    interrupted = await first.submit("b@example.org")
    waiting = await first.submit("b@example.net")
    await first.quiet()
    await first.die()

    monkeypatch.setattr(scheduler, "RECOVERY", 0.01)
    way = ScriptedTransport("t")
    rig = Rig(way, before=first)
    settle, room = rig.spool.settle, asyncio.Event()

    async def full(settlement: Settlement, *, patient: bool = False) -> object:
        if not room.is_set():
            raise SpoolError("the disk is full")
        return await settle(settlement, patient=patient)

    async def pause(_: float) -> None:
        await room.wait()

    monkeypatch.setattr(rig.spool, "settle", full)
    object.__setattr__(rig.scheduler.attempts, "pause", pause)
    await rig.scheduler.start()
    accepted = await rig.submit("c@example.com")
    rig.scheduler._pump.stall(False)  # the store is asked again after a while, whatever it said
    await rig.quiet()
    assert way.seen == [], "nothing is sent before what was interrupted is on record"
    assert await rig.states(interrupted) == [State.IN_FLIGHT]
    room.set()
    await rig.quiet()
    assert [await rig.states(one) for one in (waiting, accepted)] == [[State.DELIVERED]] * 2
    (delivery,) = (await rig.record(interrupted)).deliveries
    assert (delivery.delivery.state, delivery.delivery.doubts) == (State.QUEUED, 1)


async def test_a_stop_leaves_what_was_interrupted_to_the_next_start_where_the_store_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Rig(ScriptedTransport("t", concurrency=1, gate=asyncio.Event()))
    interrupted = await first.submit("b@example.org")
    await first.quiet()
    await first.die()
    rig = Rig(ScriptedTransport("t"), before=first)

    async def full(settlement: Settlement, *, patient: bool = False) -> Mapping[DeliveryId, float]:
        raise SpoolError("the disk is full")

    monkeypatch.setattr(rig.spool, "settle", full)
    monkeypatch.setattr(scheduler, "RECOVERY", 0.1)
    await rig.scheduler.start()
    await asyncio.wait_for(rig.scheduler.drain(30.0), 5.0)
    assert await rig.states(interrupted) == [State.IN_FLIGHT]


async def test_what_an_operator_asks_for_while_it_starts_waits_for_what_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Rig(ScriptedTransport("t", concurrency=1, gate=asyncio.Event()))
    await first.submit("b@example.org")
    waiting = await first.submit("b@example.net")
    await first.quiet()
    await first.die()
    way = ScriptedTransport("t")
    rig = Rig(way, before=first)
    counts, asked = rig.spool.sent_counts, asyncio.Event()

    async def slow() -> object:
        await asked.wait()
        return await counts()

    monkeypatch.setattr(rig.spool, "sent_counts", slow)
    start = asyncio.create_task(rig.scheduler.start())
    await rig.quiet()
    rig.scheduler.hurry()
    await rig.scheduler.refresh()
    await rig.quiet()
    assert way.seen == [], "or what it begins would be closed as interrupted"
    asked.set()
    await start
    await rig.quiet()
    assert await rig.states(waiting) == [State.DELIVERED]


async def test_what_a_start_sends_is_not_taken_for_interrupted_where_the_queue_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Rig(ScriptedTransport("t"))
    await first.die()
    monkeypatch.setattr(scheduler, "RECOVERY", 0.01)
    monkeypatch.setattr(scheduler, "STALL", 0.01)
    way = ScriptedTransport("t", gate=asyncio.Event())
    rig = Rig(way, before=first)
    lanes, mended, asked = rig.spool.lanes, asyncio.Event(), asyncio.Event()

    async def failing() -> Mapping[LaneKey, float]:
        await asked.wait()
        if not mended.is_set():
            raise SpoolError("input/output error")
        return await lanes()

    monkeypatch.setattr(rig.spool, "lanes", failing)
    await rig.scheduler.start()
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    asked.set()
    await asyncio.sleep(0.05)
    mended.set()
    await asyncio.sleep(0.05)
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert (delivery.delivery.state, delivery.delivery.doubts) == (State.IN_FLIGHT, 0)
    await rig.pass_time(100.0)
    assert way.most_under_way == 1
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    assert (len(way.seen), await rig.states(queue_id)) == (1, [State.DELIVERED])


async def test_what_could_not_be_put_on_record_goes_where_a_reload_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = ScriptedTransport("old", concurrency=1), ScriptedTransport("new")
    rig = Rig(old)
    asked, answer, opening = asyncio.Event(), asyncio.Event(), rig.spool.open_attempt

    async def failing(*_: object, **__: object) -> Opened:
        asked.set()
        await answer.wait()
        raise SpoolError("the disk is full")

    monkeypatch.setattr(rig.spool, "open_attempt", failing)
    old.gate = asyncio.Event()
    ids = [await rig.submit(f"b{n}@example.org") for n in range(2)]
    old.gate.set()
    await asked.wait()
    await rig.scheduler.swap(rig.snapshot(new))
    answer.set()
    await rig.quiet()
    monkeypatch.setattr(rig.spool, "open_attempt", opening)
    rig.scheduler._pump.stall(False)
    await rig.quiet()
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 2
    assert (len(old.seen), len(new.seen)) == (1, 1)


async def test_reject_routes_refuse_and_loops_end() -> None:
    rig = Rig(ScriptedTransport("t"))
    assert (await rig.submit("b@example.org", content=b"Received: x\r\n" * 51 + CONTENT)).startswith("554 5.4.6")
    assert await rig.waiting() == 0
    assert not (await rig.submit("b@example.org", content=b"Received: x\r\n" * 50 + CONTENT)).startswith("554")


async def test_a_header_as_large_as_a_message_is_refused() -> None:
    rig = Rig(ScriptedTransport("t"))
    assert (await rig.submit("b@example.org", content=b"From: " + b"a@example.com, " * 2_000 + b"\r\n\r\n")).startswith("552 5.3.4")
    assert (await rig.submit("b@example.org", content=b"X-A: b\r\n" * 140_000 + CONTENT)).startswith("552 5.3.4")
    assert await rig.waiting() == 0


async def test_receipts_of_line_ends_and_headers_stand_in_the_trace() -> None:
    rig = Rig(ScriptedTransport("t"))
    from sesrelay.mail.envelope import Envelope, Origin

    envelope = Envelope("a@example.com", (Recipient("b@example.org"),))
    reply = await rig.acceptance.submit(envelope, b"Bcc: x@example.org\r\n" + CONTENT, Origin(), ("bare LF became CRLF",))
    record = await rig.record(reply.text.rpartition(" ")[2])
    assert record.events[0].changes == ("bare LF became CRLF", "removed Bcc")


# --- what heavy weather showed ---


async def test_a_reload_between_acceptance_and_launch_loses_no_way_out() -> None:
    old = ScriptedTransport("t")
    rig = Rig(old)
    accept = rig.spool.accept
    new = ScriptedTransport("u")

    async def slow(submission: Submission, *, claimed: bool = False) -> None:
        await accept(submission, claimed=claimed)
        await rig.scheduler.swap(rig.snapshot(new))

    rig.spool.accept = slow  # type: ignore[method-assign]
    offered = await rig.submit("b@example.org")
    old.bucket = new.bucket = Pace(1.0, at=1_000.0, tokens=0.0)
    waiting = await rig.submit("b@example.org")
    for _ in range(5):
        await rig.pass_time(1.0)
    assert await rig.states(offered) == await rig.states(waiting) == [State.DELIVERED]
    assert (len(old.seen), len(new.seen)) == (1, 1)


async def test_a_failed_over_attempt_is_recorded_where_it_was_made() -> None:
    first = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP), failover_after=10.0)
    second = ScriptedTransport("u", answer=lambda to: Deferred(LATER, Scope.MESSAGE, ambiguous=True))
    rig = Rig(first, second, rules={"example.com": ("t", "u")})
    queue_id = await rig.submit("b@example.org")
    for _ in range(4):
        await rig.pass_time(6.0)
    (delivery,) = (await rig.record(queue_id)).deliveries
    assert second.seen
    assert (delivery.delivery.placement.lane.transport, delivery.delivery.pinned) == ("u", "u")


async def test_failover_returns_when_the_first_way_is_back() -> None:
    down = [True]
    first = ScriptedTransport(
        "t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP) if down[0] else Delivered(OK), failover_after=5.0
    )
    second = ScriptedTransport("u")
    rig = Rig(first, second, rules={"example.com": ("t", "u")})
    for n in range(40):
        await rig.submit(f"b{n}@example.org")
        await rig.pass_time(5.0)
    assert await rig.waiting() == 0
    assert len(second.seen) == 40
    assert len(first.seen) < 25, "the first way is probed, not tried with everything"
    down[0] = False
    first.seen.clear()
    for n in range(100):
        await rig.submit(f"c{n}@example.org")
        await rig.pass_time(5.0)
    assert len(first.seen) >= 40
    assert await rig.waiting() == 0


async def test_a_single_message_fails_over_in_time() -> None:
    first = ScriptedTransport("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, retry_after=300.0), failover_after=10.0)
    rig = Rig(first, ScriptedTransport("u"), rules={"example.com": ("t", "u")})
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    await rig.pass_time(9.0)
    assert await rig.states(queue_id) == [State.QUEUED]
    await rig.pass_time(2.0)
    assert await rig.states(queue_id) == [State.DELIVERED]


async def test_a_sender_domain_that_only_the_second_way_knows_goes_by_it() -> None:
    unknown = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.")
    first, second = ScriptedTransport("t", failover_after=600.0, concurrency=1), ScriptedTransport("u")
    rig = Rig(first, second, rules={"bad.example": ("t", "u"), "good.example": ("t", "u")})
    first.answer = lambda to: unknown if to.startswith("from-bad") else Delivered(OK)
    bad = [await rig.submit(f"from-bad{n}@example.org", sender="x@bad.example") for n in range(3)]
    await rig.quiet()
    await rig.pass_time(300.0)
    assert not second.seen
    for _ in range(4):
        await rig.pass_time(100.0)
    assert [await rig.states(each) for each in bad] == [[State.DELIVERED]] * 3
    late = await rig.submit("from-bad9@example.org", sender="x@bad.example")
    good = await rig.submit("ok@example.org", sender="x@good.example")
    await rig.quiet()
    assert await rig.states(late) == await rig.states(good) == [State.DELIVERED]
    assert [recipients[0] for recipients, _ in first.seen if not recipients[0].startswith("from-bad")] == ["ok@example.org"]
    assert len(second.seen) == 4


async def test_what_waits_in_memory_for_its_sender_domain_moves_too() -> None:
    unknown = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.", retry_after=3600.0)
    first, second = ScriptedTransport("t", failover_after=60.0, concurrency=1), ScriptedTransport("u")
    rig = Rig(first, second, rules={"bad.example": ("t", "u"), "good.example": ("t",)})
    first.answer = lambda to: unknown if to.startswith("from-bad") else Delivered(OK)
    await rig.submit("from-bad0@example.org", sender="x@bad.example")
    await rig.quiet()
    first.gate = asyncio.Event()
    slow = await rig.submit("slow@example.org", sender="x@good.example")
    waiting = await rig.submit("from-bad1@example.org", sender="x@bad.example")
    await rig.pass_time(70.0)
    first.gate.set()
    await rig.quiet()
    assert await rig.states(slow) == await rig.states(waiting) == [State.DELIVERED]
    assert not await rig.waiting()
    assert len(second.seen) == 2


async def test_a_sender_domain_that_no_way_knows_waits_and_returns_to_the_first() -> None:
    unknown = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify bad.example.")
    ways = [ScriptedTransport(name, answer=lambda to: unknown, failover_after=60.0) for name in ("t", "u")]
    rig = Rig(*ways, rules={"example.com": ("t", "u")})
    for n in range(5):
        await rig.submit(f"b{n}@example.org")
    for _ in range(60):
        await rig.pass_time(60.0)
    assert await rig.waiting() == 5
    assert all(3 <= len(way.seen) <= 20 for way in ways), "each is probed, and not with everything"
    ways[0].answer = lambda to: Delivered(OK)
    for _ in range(40):
        await rig.pass_time(60.0)
    assert await rig.waiting() == 0


async def test_a_pause_of_a_sender_domain_whose_probe_said_nothing_of_it_does_not_stand_for_good() -> None:
    answers: list[Outcome] = [
        Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify."),
        Failed(NO, Scope.RECIPIENT),
    ]
    way = ScriptedTransport("t", answer=lambda to: answers.pop(0))
    rig = Rig(way)
    await rig.submit("b@example.org")
    await rig.quiet()
    await rig.pass_time(400.0)
    assert not answers
    assert rig.scheduler.pauses, "that recipient is not there, which says nothing of the sender"
    assert rig.scheduler.pauses.drop_stale(rig.clock.wall()) == [], "it may be probed again"
    rig.clock.advance(pauses.PROBE_TIME + pauses.STALE + 1.0)
    assert len(rig.scheduler.pauses.drop_stale(rig.clock.wall())) == 1
    assert not rig.scheduler.pauses


@pytest.mark.parametrize("scope", [Scope.SENDER_DOMAIN, Scope.NEXTHOP])
async def test_a_backlog_that_goes_another_way_is_claimed_as_that_way_has_room(
    monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    unknown = Deferred(LATER, scope, PauseReason.CONFIGURATION, "Verify bad.example.", retry_after=3600.0)
    first, second = ScriptedTransport("t", failover_after=60.0, concurrency=1), ScriptedTransport("u", concurrency=1)
    rig = Rig(first, second, rules={"bad.example": ("t", "u")})
    first.answer = lambda to: unknown
    for n in range(2 * ROOM + 100):
        await rig.submit(f"b{n}@example.org", sender="x@bad.example")
    await rig.quiet()
    claims, claim = 0, rig.spool.claim

    async def counted(*args: Any, **named: Any) -> Claim:
        nonlocal claims
        claims += 1
        return await claim(*args, **named)

    monkeypatch.setattr(rig.spool, "claim", counted)
    second.gate = asyncio.Event()
    await rig.pass_time(70.0)
    await rig.quiet()
    assert claims <= 3, "what finds no room there is not asked for again and again"
    second.gate.set()
    for _ in range(200):
        await rig.quiet()
    assert not await rig.waiting(), "and as soon as there is room, without waiting for any time to pass"
    assert len(first.seen) == 1


async def test_what_moves_to_another_way_goes_in_batches_of_that_way() -> None:
    away = Deferred(LATER, Scope.NEXTHOP, PauseReason.UNAVAILABLE, retry_after=3600.0)
    first, second = ScriptedTransport("t", failover_after=60.0, concurrency=1), ScriptedTransport("u", batch_limit=2)
    rig = Rig(first, second, rules={"example.com": ("t", "u")})
    first.answer, first.gate = lambda to: away, asyncio.Event()
    await rig.submit("first@example.org")
    await rig.submit(*(f"b{n}@example.org" for n in range(5)))
    first.gate.set()
    await rig.quiet()
    await rig.pass_time(70.0)
    assert not await rig.waiting()
    assert max(len(recipients) for recipients, _ in second.seen) == 2


async def test_a_tolerated_answer_pauses_nothing_until_it_comes_in_a_row() -> None:
    answers: list[Outcome] = []
    hiccup = Deferred(LATER, Scope.NEXTHOP, PauseReason.UNAVAILABLE, tolerance=5)
    way = ScriptedTransport("t", answer=lambda to: answers.pop(0) if answers else Delivered(OK), concurrency=1)
    rig = Rig(way)
    for n in range(40):
        answers[:] = [hiccup] if n % 5 == 0 else []
        await rig.submit(f"b{n}@example.org")
        await rig.quiet()
    assert not rig.witness.pauses
    assert len(way.seen) == 40
    answers[:] = [hiccup] * 5
    for n in range(8):
        await rig.submit(f"c{n}@example.org")
        await rig.quiet()
    assert len(rig.witness.pauses) == 1
    for _ in range(20):
        await rig.pass_time(30.0)
    assert await rig.waiting() == 0


async def test_a_straggler_holds_up_no_probe() -> None:
    import asyncio

    way = ScriptedTransport("t", concurrency=4)
    rig = Rig(way)
    gate = asyncio.Event()
    deliver = way.deliver

    async def hang_once(batch: object, content: object) -> object:
        if not way.seen and not gate.is_set():
            way.seen.append((("hung",), b""))
            await gate.wait()
        return await deliver(batch, content)  # type: ignore[arg-type]

    way.deliver = hang_once  # type: ignore[method-assign,assignment]
    await rig.submit("hung@example.org")
    await rig.quiet()
    way.answer = lambda to: Deferred(LATER, Scope.NEXTHOP, PauseReason.THROTTLED)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(5)]
    await rig.quiet()
    way.answer = lambda to: Delivered(OK)
    for _ in range(4):
        await rig.pass_time(3.0)
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 5
    gate.set()
    await rig.quiet()


async def test_hosts_that_never_answer_leave_slots_for_the_others() -> None:
    import asyncio

    from sesrelay.delivery import slots

    tar = ScriptedTransport("tar", by_domain=True, concurrency=50, gate=asyncio.Event())
    quick = ScriptedTransport("quick")
    rig = Rig(tar, quick, rules={"example.com": ("tar",), "good.example": ("quick",)})
    for n in range(slots.ALL):
        await rig.submit(f"b@domain{n % 120}.example")
    await rig.quiet()
    assert tar.under_way == 0.8 * slots.ONE  # the rest is for hosts that are known to serve
    queue_id = await rig.submit("b@example.org", sender="a@good.example")
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]
    assert tar.gate is not None
    tar.gate.set()
    for _ in range(5):
        await rig.quiet()
    assert await rig.waiting() == 0


async def test_mail_before_a_paused_lane_is_held_at_max_age_by_the_sweep() -> None:
    from sesrelay.delivery.housekeeping import Housekeeping

    suspended = Deferred(LATER, Scope.NEXTHOP, PauseReason.SUSPENDED, retry_after=1e6)
    rig = Rig(ScriptedTransport("t", answer=lambda to: suspended, concurrency=1), retry=RetryPolicy((30.0,), 500.0, 100.0))
    ids = [await rig.submit(f"b{n}@example.org") for n in range(10)]
    await rig.quiet()
    keeping = Housekeeping(rig.spool, rig.scheduler, rig.clock, rig.witness)
    rig.clock.advance(150.0)
    await keeping.sweep()
    assert len(rig.witness.events("reported")) == 10, "one warning each"
    rig.clock.advance(400.0)
    await keeping.sweep()
    assert [await rig.states(each) for each in ids] == [[State.HELD]] * 10
    rig.clock.advance(2e6)
    await keeping.sweep()
    assert not list(rig.scheduler.pauses), "what nobody waits behind is forgotten"


async def test_a_message_whose_content_is_lost_keeps_no_other_from_its_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from sesrelay.delivery.housekeeping import Housekeeping

    suspended = Deferred(LATER, Scope.NEXTHOP, PauseReason.SUSPENDED, retry_after=1e6)
    rig = Rig(ScriptedTransport("t", answer=lambda to: suspended, concurrency=1), retry=RetryPolicy((30.0,), 500.0, 100.0))
    ids = [await rig.submit(f"b{n}@example.org") for n in range(4)]
    await rig.quiet()
    whole = rig.spool.content

    async def lost(queue_id: str) -> Canonical:
        if queue_id == ids[1]:
            raise ContentGone("lost")
        return await whole(queue_id)

    monkeypatch.setattr(rig.spool, "content", lost)
    rig.clock.advance(150.0)
    for _ in range(2):
        await Housekeeping(rig.spool, rig.scheduler, rig.clock, rig.witness).sweep()
    assert len(rig.witness.events("reported")) == 3
    assert len([told for told in rig.witness.events("trouble") if isinstance(told[2], ContentGone)]) == 1


async def test_small_content_that_waited_in_the_store_comes_with_the_opening_of_its_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER))
    rig = Rig(way)
    large = CONTENT + b"y\r\n" * READ_ALONG
    ids = [await rig.submit("b@example.org", content=content) for content in (CONTENT, large)]
    await rig.quiet()
    read, whole = [], rig.spool.content

    async def reading(queue_id: str) -> Canonical:
        read.append(queue_id)
        return await whole(queue_id)

    monkeypatch.setattr(rig.spool, "content", reading)
    way.answer = lambda to: Delivered(OK)
    await rig.pass_time(1_000.0)
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 2
    first, second = (content for _, content in way.seen[2:])
    assert (first.endswith(CONTENT), second.endswith(large)) == (True, True)
    assert read == [ids[1]], "the large one by itself"


async def test_a_retry_of_what_is_in_flight_takes_effect_at_its_end() -> None:
    import asyncio

    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER), gate=asyncio.Event())
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    assert await rig.spool.change("retry", Filter(ids=(queue_id,)), rig.clock.wall()) == 1
    way.answer = lambda to: Delivered(OK) if len(way.seen) > 1 else Deferred(LATER)
    assert way.gate is not None
    way.gate.set()
    await rig.quiet()
    await asyncio.sleep(0.01)
    await rig.quiet()
    assert await rig.states(queue_id) == [State.DELIVERED]


async def test_a_reload_hurries_what_waited_for_the_configuration() -> None:
    expired = Deferred(LATER, Scope.NEXTHOP, PauseReason.CREDENTIALS, retry_after=3600.0)
    way = ScriptedTransport("t", answer=lambda to: expired)
    rig = Rig(way)
    ids = [await rig.submit(f"b{n}@example.org") for n in range(8)]
    await rig.quiet()
    await rig.scheduler.swap(rig.snapshot(ScriptedTransport("t")))
    for _ in range(3):
        await rig.quiet()
    assert [await rig.states(each) for each in ids] == [[State.DELIVERED]] * 8


async def test_old_ways_out_are_closed_only_when_their_last_attempt_has_ended() -> None:
    import asyncio

    way = ScriptedTransport("t", gate=asyncio.Event())
    rig = Rig(way)
    await rig.submit("b@example.org")
    await rig.quiet()
    await rig.scheduler.swap(rig.snapshot(ScriptedTransport("t")))
    retired = asyncio.create_task(rig.scheduler.retired([way]))
    await rig.quiet()
    assert not retired.done()
    assert way.gate is not None
    way.gate.set()
    await asyncio.wait_for(retired, 5)


async def test_an_attempt_that_is_cut_while_its_content_is_read_is_in_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER))
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org", content=CONTENT + b"x\r\n" * READ_ALONG)
    await rig.quiet()
    asked = asyncio.Event()

    async def slow(message: str) -> Canonical:
        asked.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(rig.spool, "content", slow)
    await rig.pass_time(40.0)
    await asyncio.wait_for(asked.wait(), 10.0)
    await rig.scheduler.drain(0.0)
    one = (await rig.record(queue_id)).deliveries[0].delivery
    assert (one.state, one.attempts, one.doubts, one.reply) == (State.QUEUED, 1, 0, str(CUT.reply))
    assert len(way.seen) == 1


async def test_a_probe_that_is_cut_by_a_stop_says_nothing_of_what_it_was_to_find_out() -> None:
    class Stopped(ScriptedTransport):
        async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
            try:
                return await super().deliver(batch, content)
            except asyncio.CancelledError:
                return {delivery.id: CUT for delivery in batch.deliveries}

    way = Stopped("t", answer=lambda to: Deferred(LATER, Scope.NEXTHOP, PauseReason.CREDENTIALS))
    rig = Rig(way)
    queue_id = await rig.submit("b@example.org")
    await rig.quiet()
    (before,), way.gate = list(rig.scheduler.pauses), asyncio.Event()
    await rig.pass_time(80.0)
    assert way.under_way == 1
    await rig.scheduler.drain(0.0)
    assert await rig.states(queue_id) == [State.QUEUED]
    assert [pause.reason for pause in rig.witness.pauses] == [PauseReason.CREDENTIALS]
    assert list(rig.scheduler.pauses) == [before]
