"""What every transport of the SMTP family keeps of `seams.Transport`, and what a real mail host receives from those that send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from batches import HELLO, Bytes, Unreadable, batch, by_address, eventually, unused_port
from fakes import FakeClock
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Scope
from sesrelay.policy.stopping import CUT
from sesrelay.seams import SpoolError, Transport
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.discard import DiscardTransport
from sesrelay.transport.hold import HoldTransport
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

ALL = ["smtp", "direct", "hold", "discard"]
SENDING = ["smtp", "direct"]
DNS = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): ["127.0.0.1"]}
CONTENTS = {
    "plain": HELLO,
    "no body": b"Subject: x\r\n\r\n",
    "no header": b"\r\nbody\r\n",
    "nothing": b"",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n.a\r\n \r\n.\r\n",
    "dot first": b".\r\nSubject: x\r\n",
    "8 bit": b"Subject: x\r\n\r\ncaf\xe9 \x80\xff\x01\r\n",
    "longest lines": b"Subject: x\r\n\r\n" + b"l" * 998 + b"\r\n." + b"m" * 997 + b"\r\n",
    "large": b"Subject: x\r\n\r\n" + b".0123456789\xff\r\n" * 200_000,
    "just at once": (b"x" * 510 + b"\r\n") * 128,
    "just not at once": (b"x" * 510 + b"\r\n") * 127 + b"x" * 511 + b"\r\n",
    "whole pieces": (b"x" * 510 + b"\r\n") * 1024,
}


@dataclass
class Inbox:
    """An aiosmtpd handler that keeps what it gets, and refuses who is told to it."""

    got: list[tuple[str | None, list[str], bytes]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        if address in self.refused:
            return "550 5.1.1 Nobody"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return f"250 2.0.0 Ok: queued as N{len(self.got)}"


class PatientSMTP(SMTP):
    line_length_limit = 1 << 20


@dataclass
class World:
    inbox: Inbox
    port: int
    dns: SmallDns

    def make(self, kind: str, port: int | None = None) -> Transport:
        port = self.port if port is None else port
        match kind:
            case "smtp":
                return SmtpTransport("out", SmtpOptions(["127.0.0.1"], "relay.example.com", port), FakeClock())
            case "direct":
                options = DirectOptions("relay.example.com", port, nameservers=[self.dns.nameserver], allow_private_addresses=True)
                return DirectTransport("out", options, FakeClock())
            case "hold":
                return HoldTransport("out")
            case _:
                return DiscardTransport("out")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: PatientSMTP(inbox, hostname="mx.example.org", enable_SMTPUTF8=True, data_size_limit=1 << 26), "127.0.0.1", 0
    )
    async with SmallDns(dict(DNS)) as dns:
        yield World(inbox, server.sockets[0].getsockname()[1], dns)
    server.close()


@pytest.mark.parametrize("kind", ALL)
async def test_one_outcome_for_each_delivery(world: World, kind: str) -> None:
    out = world.make(kind)
    world.inbox.refused = {"c@example.org"}
    message = batch("b@example.org", "c@example.org", "B@example.org")
    found = by_address(message, await out.deliver(message, Bytes()))
    expected: dict[str, list[type]] = {
        "hold": [Held] * 3,
        "discard": [Delivered] * 3,
        "smtp": [Delivered, Failed, Delivered],
        "direct": [Delivered, Failed, Delivered],
    }
    assert [type(one) for one in found.values()] == expected[kind]
    await out.close()


@pytest.mark.parametrize("kind", ALL)
async def test_a_content_that_cannot_be_read_raises_nothing_and_fails_nothing(world: World, kind: str) -> None:
    out = world.make(kind)
    message = batch("b@example.org", "c@example.org")
    found = by_address(message, await out.deliver(message, Unreadable(SpoolError("disk full"))))
    if kind in SENDING:
        for outcome in found.values():
            assert isinstance(outcome, Deferred)
            assert (outcome.scope, outcome.ambiguous) == (Scope.MESSAGE, False)
        assert isinstance(by_address(message, await out.deliver(message, Bytes()))["b@example.org"], Delivered)
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
async def test_nobody_there_defers_everyone_and_costs_no_attempt(world: World, kind: str) -> None:
    out = world.make(kind, unused_port())
    message = batch("b@example.org", "c@example.org")
    for outcome in by_address(message, await out.deliver(message, Bytes())).values():
        assert isinstance(outcome, Deferred)
        assert outcome.scope in (Scope.NEXTHOP, Scope.RECIPIENT_DOMAIN)
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
async def test_every_byte_arrives(world: World, kind: str, content: bytes) -> None:
    out = world.make(kind)
    message = batch("b@example.org", "c@example.org")
    found = by_address(message, await out.deliver(message, Bytes(content)))
    assert [type(one) for one in found.values()] == [Delivered, Delivered]
    assert world.inbox.got == [("a@example.com", ["b@example.org", "c@example.org"], content)]
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
async def test_lines_longer_than_every_host_must_take_are_encoded(world: World, kind: str) -> None:
    out = world.make(kind)
    body = b"l" * 20_000 + b"\r\n." + "ü".encode() * 5000 + b"\r\n"
    message = batch()
    found = by_address(message, await out.deliver(message, Bytes(b"Subject: x\r\n\r\n" + body)))["b@example.org"]
    assert isinstance(found, Delivered)
    ((_, _, got),) = world.inbox.got
    assert max(map(len, got.split(b"\r\n"))) <= 998
    assert message_from_bytes(got).get_payload(decode=True) == body
    assert any("encoded as" in receipt for receipt in found.trail.changes)
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
async def test_what_is_delivered_has_the_remote_id(world: World, kind: str) -> None:
    out = world.make(kind)
    message = batch()
    outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
    assert isinstance(outcome, Delivered)
    assert (outcome.remote_id, str(outcome.reply)) == ("N1", "250 2.0.0 Ok: queued as N1")
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
async def test_the_null_sender(world: World, kind: str) -> None:
    out = world.make(kind)
    await out.deliver(batch(sender="", header_from=()), Bytes())
    assert world.inbox.got[0][0] == "<>"
    await out.close()


@pytest.mark.parametrize("kind", SENDING)
async def test_cancelling_ends_it_and_what_has_not_left_is_in_no_doubt(world: World, kind: str) -> None:
    class Slow(Bytes):
        asked = False

        async def read(self) -> bytes:
            self.asked = True
            await asyncio.sleep(3600)
            return b""

    out, content = world.make(kind), Slow()
    task = asyncio.create_task(out.deliver(batch(), content))
    await eventually(lambda: content.asked)
    task.cancel()
    assert set((await task).values()) == {CUT}
    await out.close()


@pytest.mark.parametrize("kind", ALL)
async def test_the_small_promises(world: World, kind: str) -> None:
    out = world.make(kind)
    assert out.name == "out"
    assert out.batch_limit >= 1
    assert out.concurrency >= 1
    assert out.failover_after > 0
    assert out.pace(50, 1.0) == 0.0
    out.give_back(50)
    assert out.nexthop("b@example.org") == out.nexthop("c@Example.ORG") != ""
    await out.close()
    await out.close()


async def test_what_is_held_says_how_it_goes_on(world: World) -> None:
    message = batch()
    outcome = by_address(message, await world.make("hold").deliver(message, Bytes()))["b@example.org"]
    assert isinstance(outcome, Held)
    assert outcome.reason == "hold"
    assert "sesrelay queue release" in outcome.remedy


async def test_what_is_discarded_counts_as_delivered(world: World) -> None:
    message = batch()
    outcome = by_address(message, await world.make("discard").deliver(message, Bytes()))["b@example.org"]
    assert isinstance(outcome, Delivered)
    assert str(outcome.reply) == "250 2.0.0 discarded"
