"""The storm guard: which messages are the same, what becomes of those that are too many, and the digest that tells of them."""

from email import message_from_bytes, policy

import pytest

from batches import Octets, filed
from engine_rig import Rig, ScriptedTransport
from sesrelay.mail import headers
from sesrelay.mail.delivery import State
from sesrelay.mail.digest import WHOLE_MAX
from sesrelay.mail.filed import PIECE, Filed, opening
from sesrelay.policy.limits import RouteLimits
from sesrelay.policy.storm import KINDS_MAX, WINDOW, Kinds, fingerprint
from sesrelay.seams import Filter, SpoolError

RULES = {"a.example": {"transports": ("t",), "limits": RouteLimits(storm_limit=3)}}
ALARM = b"From: Watch <watch@a.example>\r\nTo: ops@a.example\r\nSubject: =?utf-8?q?disk_=C3=BCber?=\r\n\r\nThe disk is full\r\n"


def mark(sender: str = "a@x", to: tuple[str, ...] = ("b@y",), content: bytes | Filed = ALARM) -> bytes:
    return fingerprint(sender, to, headers.facts(headers.split(opening(content))[0]).subject, content)


MIME = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n\r\ntext\r\n--%b--\r\n"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (mark(), mark(content=b"Date: now\r\nMessage-ID: <1@x>\r\n" + ALARM), True),
        (mark(to=("b@y", "c@y")), mark(to=("c@y", "b@y")), True),
        (mark(content=MIME % (b"aa", b"aa", b"aa")), mark(content=MIME % (b'"b=1"', b"b=1", b"b=1")), True),
        (mark(), mark(sender="other@x"), False),
        (mark(), mark(to=("b@y", "c@y")), False),
        (mark(), mark(content=ALARM.replace(b"=BCber", b"=BCbel")), False),
        (mark(), mark(content=ALARM + b"!\r\n"), False),
        (mark(content=ALARM + b"x" * 2**21 + b"1"), mark(content=ALARM + b"x" * 2**21 + b"2"), False),
    ],
)
def test_what_is_the_same(one: bytes, other: bytes, same: bool) -> None:
    assert (one == other) is same


@pytest.mark.parametrize("line", [b"x" * 70 + b"\r\n", b"--aa--\r\n", b"y" * 100_000], ids=["lines", "boundaries", "one long line"])
def test_what_is_in_a_file_is_the_same_as_what_is_held_and_is_read_in_pieces(line: bytes) -> None:
    class Watched(Octets):
        most = 0

        def read_at(self, at: int, octets: int) -> bytes:
            Watched.most = max(Watched.most, octets)
            return super().read_at(at, octets)

    content = MIME % (b"aa", b"aa", b"aa") + line * (2**21 // len(line)) + b"\r\n"
    head, _, body = content.partition(b"\r\n\r\n")
    assert mark(content=Filed(head + b"\r\n\r\n", Watched(body), 0, len(body))) == mark(content=content)
    assert Watched.most <= (PIECE if b"\n" in line else 16 * PIECE)


async def test_a_file_that_cannot_be_looked_at_is_to_be_sent_again() -> None:
    rig = Rig(ScriptedTransport("t"), rules=RULES)
    refused = await rig.submit("ops@a.example", sender="watch@a.example", content=filed(ALARM, broken_from=0))
    assert refused.startswith("451 4.3.0")
    assert await rig.everything() == []


def test_an_hour_begins_with_the_first_and_kinds_are_forgotten() -> None:
    kinds = Kinds()
    assert [kinds.see(b"a", 2, now) is None for now in (0.0, 1.0, 2.0, WINDOW - 1.0, WINDOW, WINDOW + 1.0)] == [
        True, True, False, False, True, True,
    ]  # fmt: skip
    for n in range(KINDS_MAX):
        kinds.see(b"%d" % n, 2, WINDOW + 2.0)
    assert len(kinds._kinds) == KINDS_MAX
    assert kinds.see(b"a", 2, WINDOW + 3.0) is None


async def storm(rig: Rig, n: int, content: bytes = ALARM) -> list[str]:
    ids = []
    for _ in range(n):
        rig.clock.advance(1.0)
        ids.append(await rig.submit("ops@a.example", "boss@a.example", sender="watch@a.example", content=content))
        await rig.quiet()
    return ids


async def test_what_is_too_much_of_one_kind_is_told_of_by_one_digest() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=RULES)
    ids = await storm(rig, 10)
    await rig.submit("ops@a.example", sender="watch@a.example", content=ALARM.replace(b"disk", b"house"))
    await rig.quiet()
    assert len(way.seen) == 4
    assert [(await rig.states(each))[0] for each in ids] == [State.DELIVERED] * 3 + [State.FAILED] * 7
    last = await rig.record(ids[-1])
    assert {(each.end, each.delivery.reason) for each in last.deliveries} == {("suppressed", "folded")}
    assert [event.event for event in last.events] == ["accepted", "failed", "failed"]
    (waiting,) = {each.delivery.id.message for each in await rig.spool.list(Filter(), rig.clock.wall(), None, 9)}
    assert str(last.deliveries[0].delivery.reply).endswith(waiting)
    assert len(rig.witness.events("accepted")) == 11
    await rig.pass_time(WINDOW)
    recipients, content = way.seen[-1]
    assert recipients == ("ops@a.example", "boss@a.example")
    made = message_from_bytes(content, policy=policy.default)
    assert made["Subject"] == "[7 more] disk über"
    assert (made["From"], made["Auto-Submitted"]) == ("Watch <watch@a.example>", "auto-generated")
    text, enclosed = made.iter_parts()
    assert "7 more times" in text.get_content()
    assert "a.example" in text.get_content()
    assert enclosed.get_content()["Subject"] == "disk über"
    assert await rig.states(waiting) == [State.DELIVERED] * 2
    again = await storm(rig, 4)
    assert [(await rig.states(each))[0] for each in again] == [State.DELIVERED] * 3 + [State.FAILED]


async def test_when_the_digest_is_held_another_takes_over() -> None:
    rig = Rig(ScriptedTransport("t"), rules=RULES)
    await storm(rig, 5)
    waiting = (await rig.spool.list(Filter(), rig.clock.wall(), None, 9))[0].delivery.id.message
    await rig.spool.change("hold", Filter(ids=(waiting,)), rig.clock.wall())
    (more,) = await storm(rig, 1)
    reply = str((await rig.record(more)).deliveries[0].delivery.reply)
    assert not reply.endswith(waiting)
    assert b"one more time" in await rig.spool.content(reply.rpartition(" ")[2])


async def test_a_digest_goes_out_after_the_death_of_the_process() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=RULES)
    await storm(rig, 6)
    await rig.die()
    way = ScriptedTransport("t")
    rig = Rig(way, rules=RULES, before=rig)
    await rig.scheduler.start()
    await rig.pass_time(WINDOW)
    assert len(way.seen) == 1
    assert b"Subject: [3 more] " in way.seen[0][1]


async def test_of_a_large_message_the_digest_has_the_header() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=RULES)
    await storm(rig, 5, ALARM + b"x" * 70 * 1024 + b"\r\n" * WHOLE_MAX)
    await rig.pass_time(WINDOW)
    content = way.seen[-1][1]
    assert len(content) < 3000
    assert b"text/rfc822-headers" in content


async def test_bounces_and_scheduled_mail_are_never_folded_and_a_fault_is_no_acceptance() -> None:
    way = ScriptedTransport("t")
    rig = Rig(way, rules=RULES)
    for _ in range(5):
        await rig.submit("ops@a.example", sender="", content=ALARM)
        await rig.submit("ops@a.example", sender="watch@a.example", content=ALARM, release=rig.clock.now + 9e9)
    await rig.quiet()
    assert len(way.seen) == 5

    async def fail(*_: object) -> int:
        raise SpoolError("full")

    fold, rig.spool.fold = rig.spool.fold, fail  # type: ignore[method-assign]
    ids = await storm(rig, 4)
    assert ids[3].startswith("451")
    rig.spool.fold = fold  # type: ignore[method-assign]
    await storm(rig, 1)
    await rig.pass_time(WINDOW)
    assert b"Subject: [1 more] " in way.seen[-1][1]
