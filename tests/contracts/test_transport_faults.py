"""What every transport makes of a fault of ours that nobody foresaw: whoever may have the message is in doubt, and it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from batches import Bytes, Unreadable, batch, by_address, eventually
from engine_rig import CONTENT, Rig
from fakes import FakeClock
from scripted_host import STALL, USUAL, ScriptedHost
from ses_world import Remembers, world
from sesrelay.delivery.attempt import STOPPED
from sesrelay.mail.delivery import State
from sesrelay.mail.outcome import Deferred, Delivered
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Interrupted, SpoolError
from sesrelay.testing.ses import Fault, SesStandIn
from sesrelay.transport.client import session
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.ses import attempt
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.smtp.paced import PacedSmtp
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

BY_SMTP = ["smtp", "paced", "ses by smtp", "direct"]
ALL = [*BY_SMTP, "ses"]
DNS = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): ["127.0.0.1"]}


@dataclass
class Ways:
    stack: AsyncExitStack
    host: ScriptedHost
    ses: SesStandIn
    nameserver: str
    observer: Remembers = field(default_factory=Remembers)

    async def make(self, kind: str) -> Any:
        if kind == "ses":
            there = await self.stack.enter_async_context(world(self.ses.url))
            self.observer = there.observer
            return there.transport
        if kind == "direct":
            options = DirectOptions(
                "relay.example.com", self.host.port, nameservers=[self.nameserver], allow_private_addresses=True
            )
            way: Any = DirectTransport("out", options, FakeClock())
        else:
            region = "us-east-1" if kind == "ses by smtp" else None
            way = SmtpTransport(
                "out", SmtpOptions(["127.0.0.1"], "relay.example.com", self.host.port, ses=region is not None), FakeClock()
            )
            if kind != "smtp":
                way = PacedSmtp(way, Accounts(FakeClock()).ledger(region or "", "KEY"), 1000.0, region)
        self.stack.push_async_callback(way.close)
        return way

    @property
    def sent(self) -> int:
        return len(self.host.messages) + len(self.ses.journal)


@pytest.fixture
async def ways() -> AsyncIterator[Ways]:
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(ScriptedHost(offers=("PIPELINING", "8BITMIME", "LIMITS RCPTMAX=2")))
        ses = await stack.enter_async_context(SesStandIn())
        dns = await stack.enter_async_context(SmallDns(dict(DNS)))
        yield Ways(stack, host, ses, dns.nameserver)


def breaks(monkeypatch: pytest.MonkeyPatch, at: int = 1) -> None:
    """Have the reading of an answer to a whole message fail, the `at`th time."""
    read_smtp, read_ses, asked = session.reply_of, attempt.read, 0

    def count() -> None:
        nonlocal asked
        asked += 1
        if asked == at:
            raise KeyError("a bug")

    def smtp(*of: Any) -> Any:
        count()
        return read_smtp(*of)

    def ses(*of: Any) -> Any:
        count()
        return read_ses(*of)

    monkeypatch.setattr(session, "reply_of", smtp)
    monkeypatch.setattr(attempt, "read", ses)


@pytest.mark.parametrize("kind", ALL)
async def test_a_fault_after_the_message_has_left_is_a_doubt_and_told(
    ways: Ways, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = await ways.make(kind)
    rig = Rig(way)
    breaks(monkeypatch)
    queue_id = await rig.submit("b@example.org", content=CONTENT)
    await eventually(lambda: bool(rig.witness.events("attempted")))
    await rig.quiet()
    assert [event.outcome for event in (await rig.record(queue_id)).events if event.event == "attempt"] == ["ambiguous"]
    assert await rig.states(queue_id) == [State.QUEUED]
    assert ways.sent == 1
    told = [each[2] for each in rig.witness.events("trouble")] + [error for _, error, _ in ways.observer.troubles]
    assert [type(each) for each in told] == [KeyError]
    await rig.die()


@pytest.mark.parametrize("kind", BY_SMTP)
async def test_who_was_served_before_the_fault_is_not_in_doubt(ways: Ways, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    way = await ways.make(kind)
    breaks(monkeypatch, at=2)
    message = batch(*(f"r{n}@example.org" for n in range(5)))
    with pytest.raises(Interrupted) as raised:
        await way.deliver(message, Bytes())
    assert isinstance(raised.value.__cause__, KeyError)
    known = [raised.value.known.get(delivery.id) for delivery in message.deliveries]
    assert [type(one) for one in known] == [Delivered, Delivered, type(None), type(None), Deferred]
    assert isinstance(known[4], Deferred)
    assert not known[4].ambiguous
    assert ways.sent == 2


@pytest.mark.parametrize("kind", ALL)
async def test_a_content_that_cannot_be_read_is_no_doubt(ways: Ways, kind: str) -> None:
    way = await ways.make(kind)
    message = batch("b@example.org", "c@example.org")
    for outcome in by_address(message, await way.deliver(message, Unreadable(SpoolError("disk full")))).values():
        assert isinstance(outcome, Deferred)
        assert not outcome.ambiguous
    assert ways.sent == 0


@pytest.mark.parametrize("kind", ALL)
async def test_what_is_cut_while_its_content_is_made_ready_is_in_no_doubt(ways: Ways, kind: str) -> None:
    way, message, asked = await ways.make(kind), batch("b@example.org", "c@example.org"), asyncio.Event()

    class Slow(Bytes):
        async def read(self) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

    sending = asyncio.create_task(way.deliver(message, Slow()))
    await asyncio.wait_for(asked.wait(), 10.0)
    sending.cancel()
    assert set((await sending).values()) == {CUT}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("left", [False, True], ids=["before it has left", "after that"])
async def test_what_is_cut_at_the_end_is_in_doubt_only_where_it_may_have_left(ways: Ways, kind: str, left: bool) -> None:
    way = await ways.make(kind)
    rig, asked, said = Rig(way), asyncio.Event(), "." if left else "MAIL"
    ways.host.replies[said] = STALL
    ways.ses.fail("hang")
    if kind == "ses" and not left:

        async def silent() -> None:  # a program that hands out credentials, say
            asked.set()
            await asyncio.Event().wait()

        way._session.credentials = silent
    queue_id = await rig.submit("b@example.org", content=CONTENT)
    await eventually(lambda: asked.is_set() or not ways.ses.script or bool(ways.host.said(said)) or ways.sent > 0)
    assert await rig.scheduler.drain(0.0) == left
    one = (await rig.record(queue_id)).deliveries[0].delivery
    if left:
        assert one.state is State.IN_FLIGHT, "the next start finds it, and is in doubt"
    else:
        assert (one.state, one.attempts, one.doubts, one.pinned, one.reply) == (State.QUEUED, 0, 0, None, str(CUT.reply))
        assert one.due <= rig.clock.wall(), "the next start sends it at once"
        assert not list(rig.scheduler.pauses)


@pytest.mark.parametrize("kind", BY_SMTP)
@pytest.mark.parametrize("chunks", [False, True], ids=["DATA", "BDAT"])
async def test_what_is_cut_while_it_still_leaves_is_in_no_doubt(ways: Ways, kind: str, chunks: bool) -> None:
    if chunks:
        ways.host.offers += ("CHUNKING",)
    ways.host.read_content, ways.host.replies["CONTENT"] = False, STALL
    way, message = await ways.make(kind), batch("b@example.org", "c@example.org")
    sending = asyncio.create_task(way.deliver(message, Bytes(CONTENT + b"x\r\n" * 5_000_000)))
    await eventually(lambda: bool(ways.host.said("BDAT" if chunks else "DATA")))
    await asyncio.sleep(0.2)  # the kernel has what it takes
    sending.cancel()
    assert {outcome.reply for outcome in (await sending).values()} == {CUT.reply}


@pytest.mark.parametrize("kind", BY_SMTP)
async def test_what_is_cut_after_it_was_refused_is_in_no_doubt(ways: Ways, kind: str) -> None:
    ways.host.offers += ("CHUNKING",)
    ways.host.replies |= {".": "451 4.3.0 Later", "RSET": STALL}
    way, message = await ways.make(kind), batch("b@example.org", "c@example.org")
    sending = asyncio.create_task(way.deliver(message, Bytes()))
    await eventually(lambda: bool(ways.host.said("RSET")))
    sending.cancel()
    assert {outcome.reply for outcome in (await sending).values()} == {CUT.reply}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("left", [False, True], ids=["before it has left for the next", "after that"])
async def test_who_was_served_before_the_cut_is_not_in_doubt_nor_who_was_still_to_be(ways: Ways, kind: str, left: bool) -> None:
    way = await ways.make(kind)
    ways.host.replies["." if left else "MAIL"] = [USUAL["." if left else "MAIL"], STALL]
    refusal = Fault("error", code="MessageRejected", text="Address blacklisted.", status=400)
    ways.ses.fail(refusal, "ok", "hang")
    rig = Rig(way)
    if kind == "ses" and not left:
        credentials = way._session.credentials

        async def silent() -> Any:
            if sum(ways.ses.requests.values()) == 2:
                await asyncio.Event().wait()
            return await credentials()

        way._session.credentials = silent
    queue_id = await rig.submit(*(f"r{n}@example.org" for n in range(5)), content=CONTENT)
    calls = 3 if left else 2
    if kind == "ses":
        await eventually(lambda: sum(ways.ses.requests.values()) == calls)
    else:
        await eventually(lambda: len(ways.host.messages) == 2 if left else len(ways.host.said("MAIL")) == 2)
    await rig.quiet()
    assert await rig.scheduler.drain(0.0) == 0
    found = [each.delivery for each in (await rig.record(queue_id)).deliveries]
    served = [one for one in found if one.state is State.DELIVERED]
    doubted = [one for one in found if one.doubts]
    rest = [one for one in found if one not in served and one not in doubted]
    assert served
    assert bool(doubted) == left
    assert all(one.state is State.QUEUED for one in (*doubted, *rest))
    assert {one.reply for one in doubted} <= {str(STOPPED)}
    assert {(one.reply, one.attempts) for one in rest} <= {(str(CUT.reply), 0)}
    assert not rig.witness.events("trouble")
