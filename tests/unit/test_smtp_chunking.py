"""Content by BDAT, to a host that offers CHUNKING and answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from batches import HELLO, Bytes, batch, by_address
from fakes import FakeClock
from scripted_host import DROP, RESET, STALL, ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, Scope
from sesrelay.transport.client.connect import Timeouts
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport

Send = Callable[..., Awaitable[Outcome]]
LARGE = b"Subject: x\r\n\r\n" + b".0123456789\xff\r\n" * 200_000


@pytest.fixture(params=["PIPELINING", ""])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[ScriptedHost]:
    async with ScriptedHost(offers=("CHUNKING", "8BITMIME", request.param)) as host:
        yield host


@pytest.fixture
async def send(host: ScriptedHost) -> AsyncIterator[Send]:
    made: list[SmtpTransport] = []

    async def send(content: bytes = HELLO, recipients: tuple[str, ...] = (), **options: Any) -> Outcome:
        if not made:
            made.append(SmtpTransport("out", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port, **options), FakeClock()))
        message = batch(*recipients)
        return by_address(message, await made[0].deliver(message, Bytes(content)))[(recipients or ("b@example.org",))[0]]

    yield send
    await made[0].close()


@pytest.mark.parametrize("content", [HELLO, b"", b".\r\n..\r\n", LARGE], ids=["small", "nothing", "dots", "large"])
async def test_every_byte_arrives_in_one_chunk(host: ScriptedHost, send: Send, content: bytes) -> None:
    assert isinstance(await send(content), Delivered)
    assert host.messages[0].content == content
    assert host.said("BDAT") == [f"BDAT {len(content)} LAST"]
    assert host.said("DATA") == []


async def test_the_connection_serves_again(host: ScriptedHost, send: Send) -> None:
    for content in (HELLO, LARGE, HELLO):
        assert isinstance(await send(content), Delivered)
    assert host.connections == 1


@pytest.mark.parametrize("how", [DROP, RESET])
async def test_a_lost_answer_to_the_chunk_is_in_doubt(host: ScriptedHost, send: Send, how: str) -> None:
    host.replies["."] = how
    for content in (HELLO, LARGE):
        outcome = await send(content)
        assert isinstance(outcome, Deferred)
        assert (outcome.ambiguous, outcome.scope) == (True, Scope.MESSAGE)


async def test_a_late_answer_to_the_chunk_is_in_doubt(host: ScriptedHost, send: Send) -> None:
    host.replies["."] = STALL
    outcome = await send(timeouts=Timeouts(final=0.05))
    assert isinstance(outcome, Deferred)
    assert outcome.ambiguous


async def test_a_connection_lost_within_the_chunk_is_not_in_doubt(host: ScriptedHost, send: Send) -> None:
    host.read_content, host.replies["CONTENT"] = False, RESET
    outcome = await send(LARGE * 4)
    assert isinstance(outcome, Deferred)
    assert (outcome.ambiguous, outcome.scope) == (False, Scope.MESSAGE)


async def test_a_refused_chunk_is_followed_by_rset(host: ScriptedHost, send: Send) -> None:
    host.replies["."] = ["554 5.6.0 Spam", "250 2.0.0 Ok"]
    refused = await send()
    assert (type(refused), str(refused.reply)) == (Failed, "554 5.6.0 Spam")
    assert host.commands[0][-1] == "RSET"
    assert isinstance(await send(), Delivered)
    assert host.connections == 1


@pytest.mark.parametrize("reply", ["500 5.5.1 Unknown command", "502 5.5.2 Error: command not recognized"])
async def test_a_host_that_does_not_know_what_it_announced_gets_the_message_by_data(
    host: ScriptedHost, send: Send, reply: str
) -> None:
    host.replies["."] = [reply, "250 2.0.0 Ok"]
    for _ in range(2):
        assert isinstance(await send(), Delivered)
    assert (len(host.said("BDAT")), len(host.said("DATA")), host.connections) == (1, 2, 2)
    assert [one.content for one in host.messages] == [HELLO, HELLO]


@pytest.mark.parametrize("content", [HELLO, LARGE], ids=["small", "large"])
async def test_nor_where_it_takes_the_content_for_commands(send: Send, host: ScriptedHost, content: bytes) -> None:
    host.chunks = False
    for _ in range(2):
        assert isinstance(await send(content), Delivered)
    assert [one.content for one in host.messages] == [content, content]
    host.replies["RCPT"] = ["250 2.1.5 Ok", "550 5.1.1 Nobody"]
    host.drop_all()
    refused = await send(content)
    assert (type(refused), refused.reply.enhanced) == (Failed, "5.1.1")


async def test_nothing_leaves_for_nobody(host: ScriptedHost, send: Send) -> None:
    host.replies["RCPT"] = ["550 5.1.1 Nobody", "250 2.1.5 Ok"]
    assert isinstance(await send(), Failed)
    assert host.said("BDAT") == []
    assert host.commands[0][-1] == "RSET"
    assert isinstance(await send(), Delivered)
    assert host.connections == 1


async def test_for_those_that_were_accepted(host: ScriptedHost, send: Send) -> None:
    host.replies["RCPT c@example.org"] = "550 5.1.1 Nobody"
    assert isinstance(await send(HELLO, ("b@example.org", "c@example.org")), Delivered)
    assert host.messages[0].rcpt == ["RCPT TO:<b@example.org>"]
