"""Reports of the engine: who is told of what, and a bounce on each rung of its ladder, down to the folder."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path

import pytest

from engine_rig import CONTENT, OK, Rig, ScriptedTransport
from sesrelay.delivery.attempt import READ_ALONG
from sesrelay.delivery.housekeeping import Housekeeping
from sesrelay.mail.dates import rfc5322
from sesrelay.mail.delivery import State
from sesrelay.mail.envelope import Envelope, Notify, Origin, Recipient, Rung
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.policy.ladder import Ladder
from sesrelay.policy.retry import RetryPolicy
from sesrelay.seams import MessageRecord, SpoolError

NO = Reply(550, "5.7.1", "No")
LATER = Reply(451, "4.3.0", "Later")
REPORTS = {"SUCCESS": "relayed", "FAILURE": "failed", "DELAY": "delayed"}


def notify(*words: str) -> Notify:
    return frozenset(words)  # type: ignore[arg-type]


async def reports(rig: Rig) -> list[MessageRecord]:
    return [each for each in await rig.everything() if each.message.report]


def kinds(found: list[MessageRecord]) -> list[str]:
    return sorted(each.message.subject.rpartition(" ")[2] for each in found)


# --- NOTIFY ---


@pytest.mark.parametrize("asked", [None, *(notify(*words.split()) for words in ("NEVER", "SUCCESS", "FAILURE", "DELAY",
                                   "SUCCESS FAILURE", "FAILURE DELAY", "SUCCESS FAILURE DELAY"))])  # fmt: skip
@pytest.mark.parametrize("sender", ["a@example.com", ""])
@pytest.mark.parametrize("end", ["SUCCESS", "FAILURE", "DELAY"])
async def test_notify_decides_who_hears_of_what(asked: Notify | None, sender: str, end: str) -> None:
    outcome: Outcome = {"SUCCESS": Delivered(OK), "FAILURE": Failed(NO), "DELAY": Deferred(LATER)}[end]
    way = ScriptedTransport("t", answer=lambda to: outcome if to == "b@example.org" else Delivered(OK))
    rig = Rig(way, retry=RetryPolicy((30.0,), max_age=10_000.0, delay_warning=10.0))
    await rig.submit(Recipient("b@example.org", asked), sender=sender)
    await rig.quiet()
    await rig.pass_time(40.0)
    await rig.pass_time(40.0)
    wanted = sender and (end in asked if asked is not None else end != "SUCCESS")
    assert kinds(await reports(rig)) == ([REPORTS[end]] if wanted else [])


@pytest.mark.parametrize("passed_on", [True, False])
async def test_success_is_told_by_whoever_took_over_the_duty(passed_on: bool) -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Delivered(OK, dsn_passed_on=passed_on)))
    await rig.submit(Recipient("b@example.org", notify("SUCCESS")))
    await rig.quiet()
    assert kinds(await reports(rig)) == ([] if passed_on else ["relayed"])


@pytest.mark.parametrize(
    "header",
    [
        b"Auto-Submitted: auto-generated\r\n",
        b"auto-submitted: auto-replied; x\r\n",
        b"Content-Type: multipart/report; boundary=x\r\n",
    ],
)
async def test_automatic_mail_hears_of_nothing_and_its_failure_lies_in_the_folder(header: bytes, tmp_path: Path) -> None:
    outcomes: list[Outcome] = [Deferred(LATER), Failed(NO)]
    way = ScriptedTransport("t", answer=lambda to: outcomes[0])
    rig = Rig(way, retry=RetryPolicy((30.0,), max_age=10_000.0, delay_warning=1.0), folder=tmp_path / "undeliverable")
    await rig.submit("b@example.org", content=header + CONTENT)
    await rig.submit(Recipient("asks@example.org", notify("FAILURE")), content=header + CONTENT)
    await rig.quiet()
    await rig.pass_time(40.0)
    assert await reports(rig) == [], "no delay warning"
    way.answer = lambda to: Delivered(OK) if to == "a@example.com" else Failed(NO)
    await rig.pass_time(40.0)
    await settled(rig)
    sent = [content for to, content in way.seen if to == ("a@example.com",)]
    assert len(sent) == 1
    assert b"asks@example.org" in sent[0], "who asks is told"
    (kept,) = (tmp_path / "undeliverable" / "new").iterdir()
    assert b"rfc822; b@example.org" in kept.read_bytes()


async def test_auto_submitted_no_is_a_persons_mail() -> None:
    rig = Rig(ScriptedTransport("t", answer=lambda to: Failed(NO) if to == "b@example.org" else Delivered(OK)))
    await rig.submit("b@example.org", content=b"Auto-Submitted: no\r\n" + CONTENT)
    await rig.quiet()
    assert kinds(await reports(rig)) == ["failed"]


async def test_a_report_says_what_was_answered_by_whom(tmp_path: Path) -> None:
    way = ScriptedTransport("t", answer=lambda to: Failed(NO, remedy="Mend it.") if to == "b@example.org" else Delivered(OK))
    rig = Rig(way)
    envelope = Envelope("a@example.com", (Recipient("b@example.org", orcpt="rfc822;x+2By@example.org"),), ret="HDRS", envid="e+2B1")
    await rig.acceptance.submit(envelope, CONTENT, Origin())  # type: ignore[arg-type]
    await rig.quiet()
    parsed = message_from_bytes(way.seen[-1][1], policy=policy.default)
    per_message, recipient = parsed.get_payload(1).get_payload()  # type: ignore[union-attr]
    assert per_message["Original-Envelope-Id"] == "e+1"
    assert recipient["Original-Recipient"] == "rfc822;x+y@example.org"
    assert recipient["Diagnostic-Code"] == "X-sesrelay; 550 5.7.1 No"
    assert parsed.get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]


async def test_a_report_of_a_delay_says_how_long_it_goes_on() -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER) if to == "b@example.org" else Delivered(OK))
    rig = Rig(way, retry=RetryPolicy((30.0,), max_age=10_000.0, delay_warning=10.0))
    until = rfc5322(rig.clock.now + 10_000.0)
    await rig.submit("b@example.org")
    await rig.quiet()
    await rig.pass_time(40.0)
    parsed = message_from_bytes(way.seen[-1][1], policy=policy.default)
    assert f"will be made until {until}" in " ".join(parsed.get_payload(0).get_content().split())  # type: ignore[union-attr]
    assert parsed.get_payload(1).get_payload()[1]["Will-Retry-Until"] == until  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("nexthop", "host", "told", "shown"),
    [
        ("example.org", "mx1.example.org", "mx1.example.org", {"Remote-MTA": "dns; mx1.example.org", "Diagnostic-Code": "smtp"}),
        ("ses/eu-west-1/AKIDEXAMPLE", None, "Amazon SES in eu-west-1", {"Remote-MTA": None, "Diagnostic-Code": "X-Amazon-SES"}),
        ("ses/eu-west-1", None, "Amazon SES in eu-west-1", {"Remote-MTA": None, "Diagnostic-Code": "X-Amazon-SES"}),
        ("hop/eu-west-1", None, "", {"Remote-MTA": None, "Diagnostic-Code": "X-sesrelay"}),
    ],
)
async def test_a_report_names_who_answered_and_no_key(
    nexthop: str, host: str | None, told: str, shown: dict[str, str | None]
) -> None:
    refused = Failed(NO, trail=Trail(host=host))
    way = ScriptedTransport("t", answer=lambda to: refused if to == "b@example.org" else Delivered(OK))
    way.nexthop = lambda recipient: nexthop  # type: ignore[method-assign]
    rig = Rig(way)
    await rig.submit("b@example.org")
    await rig.quiet()
    content = way.seen[-1][1]
    parsed = message_from_bytes(content, policy=policy.default)
    assert told in parsed.get_payload(0).get_content()  # type: ignore[union-attr]
    recipient = parsed.get_payload(1).get_payload()[1]  # type: ignore[union-attr]
    assert {name: recipient[name] and recipient[name].partition("; 5")[0] for name in shown} == shown
    assert b"AKIDEXAMPLE" not in content


# --- the ladder ---


async def settled(rig: Rig) -> None:
    """Wait also for the thread that writes into the folder."""
    import asyncio

    for _ in range(50):
        await rig.quiet()
        if not rig.scheduler.in_flight:
            return
        await asyncio.sleep(0.01)


def refusing(name: str, answer: Outcome, *, last: str = "b@example.org") -> ScriptedTransport:
    return ScriptedTransport(name, answer=lambda to: Failed(NO) if to == last else answer)


UNVERIFIED = Deferred(LATER, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, "Verify it.")


@pytest.mark.parametrize(
    "obstacle",
    [Failed(NO), UNVERIFIED, Held(LATER, "permission"), Held(LATER, "no_sender")],
    ids=["5xx", "unverified", "iam", "source"],
)
async def test_a_bounce_goes_down_rung_by_rung_to_the_folder(obstacle: Outcome, tmp_path: Path) -> None:
    relay, ses, direct = (refusing(name, obstacle) for name in ("relay", "ses", "direct"))
    rig = Rig(
        relay, ses, direct, rules={"example.com": ("relay",), "example.net": ("ses",)}, folder=tmp_path / "undeliverable",
        ladder=Ladder(frozenset({"ses"}), "direct", ("relay.example.net",)),
    )  # fmt: skip
    original = await rig.submit("b@example.org")
    await settled(rig)
    ways = [each.message.report for each in reversed(await reports(rig))]
    assert [way.rung for way in ways if way] == [Rung.ROUTE, Rung.SES, Rung.DIRECT, Rung.FOLDER]
    assert [(len(way.seen), way.seen[-1][0]) for way in (ses, direct)] == [(1, ("a@example.com",))] * 2
    assert b"\r\nFrom: Mail Delivery System <mailer-daemon@example.net>\r\n" in ses.seen[0][1]
    found = list(reversed(await reports(rig)))
    other = "From: mailer-daemon@example.net"
    assert [each.message.changes for each in found] == [(), (other,), (other,), (other,)], (
        "each change of the header has its receipt"
    )
    states = [(await rig.states(each.message.id))[0] for each in found]
    assert states == [State.FAILED, State.FAILED, State.FAILED, State.DELIVERED]
    told = [event.reply for each in (await rig.record(original), *found) for event in (await rig.record(each.message.id)).events
            if event.event == "bounced"]  # fmt: skip
    assert told == [each.message.id for each in found], "each step names the next"
    (kept,) = (tmp_path / "undeliverable" / "new").iterdir()
    assert kept.name.startswith(found[-1].message.id)
    parsed = message_from_bytes(kept.read_bytes(), policy=policy.default)
    assert (parsed["To"], parsed["Return-Path"]) == ("a@example.com", "<>")
    assert len(list(parsed.iter_parts())) == 3  # type: ignore[attr-defined]
    assert await rig.waiting() == 0
    assert not list(rig.scheduler.pauses), "that mailer-daemon@ may not send pauses nobody else"


@pytest.mark.parametrize("stop", ["relay", "ses", "direct"])
async def test_a_rung_that_serves_is_the_last_one(stop: str, tmp_path: Path) -> None:
    ways = {name: refusing(name, Delivered(OK) if name == stop else Failed(NO)) for name in ("relay", "ses", "direct")}
    rig = Rig(
        *ways.values(), rules={"example.com": ("relay",), "example.net": ("ses",)}, folder=tmp_path / "undeliverable",
        ladder=Ladder(frozenset({"ses"}), "direct", ("relay.example.net",)),
    )  # fmt: skip
    await rig.submit("b@example.org")
    await settled(rig)
    (last, *_) = await reports(rig)
    assert await rig.states(last.message.id) == [State.DELIVERED]
    assert not (tmp_path / "undeliverable").exists()


async def test_a_bounce_that_nothing_takes_for_max_age_goes_on_and_so_does_one_behind_a_pause(tmp_path: Path) -> None:
    for wide in (Deferred(LATER, Scope.NEXTHOP, PauseReason.SUSPENDED, retry_after=1e6), Deferred(LATER, Scope.RECIPIENT)):
        way = refusing("t", wide)
        rig = Rig(way, folder=tmp_path / f"u-{wide.scope}", retry=RetryPolicy((30.0,), 500.0, None))
        await rig.submit("b@example.org")
        await settled(rig)
        rig.clock.advance(600.0)
        await Housekeeping(rig.spool, rig.scheduler, rig.clock, rig.witness).sweep()
        await rig.pass_time(0.0)
        await settled(rig)
        assert len(list((tmp_path / f"u-{wide.scope}" / "new").iterdir())) == 1
        assert await rig.waiting() == 0


async def test_a_bounce_in_doubt_is_repeated_where_it_may_be_and_then_held(tmp_path: Path) -> None:
    way = refusing("t", Deferred(LATER, Scope.MESSAGE, ambiguous=True))
    rig = Rig(way, folder=tmp_path / "undeliverable")
    await rig.submit("b@example.org")
    await settled(rig)
    for _ in range(4):
        await rig.pass_time(200.0)
    (bounce,) = await reports(rig)
    assert (await rig.record(bounce.message.id)).deliveries[0].delivery.reason == "in_doubt"


async def test_a_bounce_to_somebody_without_a_mailbox_lies_in_the_folder_at_once(tmp_path: Path) -> None:
    way = ScriptedTransport("t", answer=lambda to: Failed(NO))
    rig = Rig(way, folder=tmp_path / "undeliverable")
    await rig.submit("b@example.org", sender="www-data@relay.example.net")
    await settled(rig)
    assert len(way.seen) == 1
    assert len(list((tmp_path / "undeliverable" / "new").iterdir())) == 1


async def test_a_folder_that_cannot_be_written_is_an_obstacle_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "undeliverable"
    folder.write_text("in the way")
    rig = Rig(ScriptedTransport("t", answer=lambda to: Failed(NO)), folder=folder)
    await rig.submit("b@example.org")
    await settled(rig)
    assert await rig.waiting() == 1
    assert [pause.transport for pause in rig.witness.pauses] == ["undeliverable"]
    folder.unlink()
    await rig.pass_time(200.0)
    await settled(rig)
    assert await rig.waiting() == 0
    assert len(list((folder / "new").iterdir())) == 1


def test_a_repetition_leaves_one_file_wherever_a_reader_has_put_it(tmp_path: Path) -> None:
    from sesrelay.transport.folder import count, put

    assert count(tmp_path / "u") == 0
    for _ in range(2):
        put(tmp_path / "u", "id.host", b"a\r\n")  # type: ignore[arg-type]
    (tmp_path / "u" / "new" / "id.host").rename(tmp_path / "u" / "cur" / "id.host:2,S")
    put(tmp_path / "u", "id.host", b"a\r\n")  # type: ignore[arg-type]
    assert count(tmp_path / "u") == 1
    assert not list((tmp_path / "u" / "tmp").iterdir())


async def test_a_message_that_cannot_be_read_for_its_report_is_held_and_stops_nobody() -> None:
    way = ScriptedTransport("t", answer=lambda to: Deferred(LATER) if to == "b@example.org" else Delivered(OK))
    rig = Rig(way, retry=RetryPolicy((30.0,), 100.0, None))
    queue_id = await rig.submit("b@example.org", content=CONTENT + b"y\r\n" * READ_ALONG)
    await rig.quiet()
    content = rig.spool.content

    async def damaged(message: str) -> object:
        if message == queue_id:
            raise SpoolError("the content no longer exists")
        return await content(message)

    rig.spool.content = damaged  # type: ignore[method-assign,assignment]
    for _ in range(3):
        await rig.pass_time(60.0)
    record = await rig.record(queue_id)
    (delivery,) = record.deliveries
    assert (delivery.delivery.state, delivery.delivery.reason) == (State.HELD, "unreadable")
    assert [(event.event, event.outcome) for event in record.events][-2:] == [("attempt", "deferred"), ("held", "unreadable")]
    assert await reports(rig) == []
    other = await rig.submit("c@example.org")
    await rig.quiet()
    assert await rig.states(other) == [State.DELIVERED]
