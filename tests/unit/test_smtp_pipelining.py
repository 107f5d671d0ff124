"""A transaction in two round trips, octet for octet: what goes out at once, and what each reply or its absence means.

The host here answers nothing before all that it waits for has come, so that whoever waits for a reply too early waits in vain.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from batches import HELLO, Bytes, batch, eventually
from loops import LOOPS
from sesrelay.mail.delivery import Batch
from sesrelay.transport.client.answers import Answer, Stage
from sesrelay.transport.client.connect import Endpoint, Timeouts
from sesrelay.transport.client.content import Payload
from sesrelay.transport.client.session import Session
from sesrelay.transport.tls.security import Security, Tls

Run = Callable[[Coroutine[Any, Any, None]], None]

MAIL, RCPT_B, RCPT_C, DATA = (
    b"MAIL FROM:<a@example.com>\r\n",
    b"RCPT TO:<b@example.org>\r\n",
    b"RCPT TO:<c@example.org>\r\n",
    b"DATA\r\n",
)
GROUP = MAIL + RCPT_B + RCPT_C + DATA
CONTENT = HELLO + b".\r\n"
OK, GO_ON, QUEUED = b"250 2.1.0 Ok\r\n", b"354 Go on\r\n", b"250-2.0.0 Ok: queued\r\n250 as 4XyZ\r\n"
NO_RECIPIENTS = b"554 5.5.1 No valid recipients\r\n"
AGREED = OK + OK + OK + GO_ON


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a test on each event loop; what a loop would only have logged is a failure."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        faults: list[dict[str, Any]] = []
        runner.get_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        yield runner.run
    assert faults == []


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def byte_by_byte(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def random_pieces(seed: int) -> Callable[[bytes], list[bytes]]:
    def cut(octets: bytes) -> list[bytes]:
        places = sorted(random.Random(seed).sample(range(1, len(octets)), min(4, len(octets) - 1)))
        return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]

    return cut


@dataclass
class Host:
    """Waits for so many octets, then says something, step by step on one connection; then it closes, or `lingers`.

    `deaf`: then it reads no more, but does not close before the test ends.
    """

    steps: Sequence[tuple[int, bytes]]
    cut: Callable[[bytes], list[bytes]] = whole
    offers: Sequence[bytes] = (b"PIPELINING",)
    lingers: bool = True
    deaf: bool = False
    pause: float = 0.0
    tls: ssl.SSLContext | None = None
    heard: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    ended: bool = False

    async def __aenter__(self) -> Host:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls, limit=1 << 16)
        self._over = asyncio.Event()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()
        await eventually(lambda: self.ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 host.test ESMTP\r\n")
            await reader.readline()
            writer.write(b"".join(b"250-%s\r\n" % offer for offer in (b"host.test", *self.offers)) + b"250 HELP\r\n")
            with contextlib.suppress(asyncio.IncompleteReadError):
                for count, reply in self.steps:
                    self.heard.append(await reader.readexactly(count))
                    for piece in self.cut(reply):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(self.pause)
            if self.deaf:
                await self._over.wait()
            with contextlib.suppress(ConnectionError):
                if self.lingers:
                    self.rest = await reader.read()
        finally:
            writer.close()
            self.ended = True

    async def session(self, tls: Tls = "none", context: ssl.SSLContext | None = None, **timeouts: float) -> Session:
        return await Session.open(
            Endpoint("localhost", self.port, "127.0.0.1", Security(tls, context), "relay.test", timeouts=Timeouts(**timeouts))
        )


async def offer(session: Session, message: Batch | None = None, content: bytes = HELLO) -> list[Answer]:
    """Return the answer for each recipient, by default b and c."""
    message = message or batch("b@example.org", "c@example.org")
    async with asyncio.timeout(10):
        done = await session.transact(message, Payload(Bytes(content)))
    return [done.answers[delivery.id] for delivery in message.deliveries]


def places(answers: list[Answer]) -> list[tuple[Stage, int, bool]]:
    return [(answer.stage, answer.reply.code, answer.lost) for answer in answers]


DELIVERED = (Stage.DOT, 250, False)


# --- the whole exchange ---


@pytest.mark.parametrize("cut", [whole, byte_by_byte, *map(random_pieces, range(8))])
def test_two_round_trips_whatever_the_replies_come_in(run: Run, cut: Callable[[bytes], list[bytes]]) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), AGREED), (len(CONTENT), QUEUED)] * 2, cut) as host:
            session = await host.session()
            for _ in range(2):
                answers = await offer(session)
                assert places(answers) == [DELIVERED] * 2
                assert str(answers[0].reply) == "250 2.0.0 Ok: queued as 4XyZ"
                assert session.usable
            session.leave()
            assert not session.usable
        assert host.heard == [GROUP, CONTENT] * 2
        assert host.rest == b"QUIT\r\n"

    run(test())


def test_one_command_at_a_time_where_pipelining_is_not_offered(run: Run) -> None:
    async def test() -> None:
        steps = [(len(MAIL), OK), (len(RCPT_B), OK), (len(RCPT_C), OK), (len(DATA), GO_ON), (len(CONTENT), QUEUED)]
        async with Host(steps, offers=(b"8BITMIME",)) as host:
            session = await host.session()
            assert places(await offer(session)) == [DELIVERED] * 2
            session.leave()
        assert host.heard == [MAIL, RCPT_B, RCPT_C, DATA, CONTENT]

    run(test())


MUCH = 16_000_000  # octets: more than the kernel's buffers on both sides take


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_a_large_content_to_a_host_that_reads_slowly(run: Run, tls: bool) -> None:
    authority, secured = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(secured)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    octets = random.Random(1).randbytes(MUCH).translate(bytes(n & 127 for n in range(256))).translate(None, b"\r\n\0.")
    content = b"".join(octets[n : n + 900] + b"\r\n" for n in range(0, len(octets), 900))

    async def test() -> None:
        slowly = [(1_000_000, b"")] * (len(content) // 1_000_000)
        end = (len(content) % 1_000_000 + 3, QUEUED)
        group = MAIL + RCPT_B + DATA
        async with Host([(len(group), OK + OK + GO_ON), *slowly, end], pause=0.002, tls=secured if tls else None) as host:
            session = await host.session("implicit" if tls else "none", trusting if tls else None)
            assert places(await offer(session, batch(), content)) == [DELIVERED]
            assert session.usable
            session.leave()
        assert b"".join(host.heard[1:]) == content + b".\r\n"

    run(test())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (b"552 5.3.4 Too big after all\r\n", (Stage.CONTENT, 552, False)),
        (b"421 4.3.2 Closing\r\n", (Stage.CONTENT, 421, False)),
        (QUEUED, (Stage.CONTENT, 451, True)),
        (b"hello\r\n", (Stage.CONTENT, 451, True)),
        (b"", (Stage.CONTENT, 451, True)),
    ],
    ids=["refused", "421", "taken too early", "nonsense", "silence"],
)
def test_a_host_that_reads_no_further_is_heard(run: Run, word: bytes, expected: Any) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), AGREED), (10, word)], deaf=True) as host:
            session = await host.session(block=5.0 if word else 0.2)
            assert places(await offer(session, content=b"x" * MUCH + b"\r\n")) == [expected] * 2
            assert not session.usable
            session.leave()

    run(test())


# --- a refusal at each place ---

NO, LATER = b"550 5.7.1 No\r\n", b"450-4.2.0 Not\r\n450 now\r\n"
B_NO, C_LATER = (Stage.RCPT, 550, False), (Stage.RCPT, 450, False)
RSET = (len(b"RSET\r\n"), OK)


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize(
    ("replies", "then", "expected"),
    [
        (NO + NO_RECIPIENTS * 3, [], [(Stage.MAIL, 550, False)] * 2),
        (LATER + OK + OK + NO_RECIPIENTS, [], [(Stage.MAIL, 450, False)] * 2),
        (OK + NO + OK + GO_ON, [(len(CONTENT), QUEUED)], [B_NO, DELIVERED]),
        (OK + OK + LATER + GO_ON, [(len(CONTENT), QUEUED)], [DELIVERED, C_LATER]),
        (OK + NO + LATER + NO_RECIPIENTS, [RSET], [B_NO, C_LATER]),
        (OK + OK + OK + NO, [RSET], [(Stage.DATA, 550, False)] * 2),
        (OK + NO + OK + LATER, [RSET], [B_NO, (Stage.DATA, 450, False)]),
        (AGREED, [(len(CONTENT), NO)], [(Stage.DOT, 550, False)] * 2),
        (OK + OK + LATER + GO_ON, [(len(CONTENT), NO)], [(Stage.DOT, 550, False), C_LATER]),
    ],
    ids=["MAIL", "MAIL, and RCPT is taken", "RCPT b", "RCPT c", "each RCPT", "DATA", "RCPT b and DATA", "dot", "RCPT c and dot"],
)
def test_a_refusal_is_for_whom_it_concerns_and_the_next_message_goes_its_way(
    run: Run, replies: bytes, then: list[tuple[int, bytes]], expected: list[Any], cut: Callable[[bytes], list[bytes]]
) -> None:
    async def test() -> None:
        again = [(len(GROUP), AGREED), (len(CONTENT), QUEUED)]
        async with Host([(len(GROUP), replies), *then, *again], cut) as host:
            session = await host.session()
            assert places(await offer(session)) == expected
            assert places(await offer(session)) == [DELIVERED] * 2
            session.leave()
        assert host.heard[-2:] == [GROUP, CONTENT]
        assert host.heard[1:-2] == [b"RSET\r\n" if one == RSET else CONTENT for one in then]

    run(test())


@pytest.mark.parametrize(
    ("replies", "expected"),
    [(OK + NO + LATER + GO_ON, [B_NO, C_LATER]), (NO + NO + NO + GO_ON, [(Stage.MAIL, 550, False)] * 2)],
    ids=["each RCPT", "MAIL"],
)
def test_where_content_is_wanted_for_nobody_the_line_is_cut(run: Run, replies: bytes, expected: list[Any]) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), replies)]) as host:
            session = await host.session()
            assert places(await offer(session)) == expected
            assert not session.usable
            session.leave()
        assert host.heard == [GROUP]
        assert host.rest == b""  # not even a dot or QUIT, which would be content

    run(test())


@pytest.mark.parametrize("pipelining", [True, False])
def test_nobody_accepted_and_one_at_a_time_sends_no_data(run: Run, pipelining: bool) -> None:
    async def test() -> None:
        steps = [(len(MAIL), OK), (len(RCPT_B), NO), (len(RCPT_C), NO), RSET]
        if pipelining:
            steps = [(len(GROUP), OK + NO + NO + NO_RECIPIENTS), RSET]
        async with Host(steps, offers=(b"PIPELINING",) if pipelining else ()) as host:
            session = await host.session()
            assert places(await offer(session)) == [B_NO] * 2
            assert session.usable
            session.leave()
        assert host.heard[-1] == b"RSET\r\n"
        assert (DATA in host.heard[0]) is pipelining
        assert host.rest == b"QUIT\r\n"

    run(test())


# --- the end at each place ---

STAGES = [Stage.MAIL, Stage.RCPT, Stage.RCPT, Stage.DATA]
REPLIES = [OK, OK, OK, GO_ON]
HALF = [b"", b"25", b"250-and\r\n"]


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("place", range(4))
def test_a_connection_lost_within_the_replies_is_lost_at_the_first_without_one(run: Run, place: int, half: bytes) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), b"".join(REPLIES[:place]) + half)], lingers=False) as host:
            session = await host.session()
            answers = await offer(session)
            assert places(answers) == [(STAGES[place], 451, True)] * 2
            assert answers[0].reply.enhanced == "4.4.2"
            assert not session.usable
            session.leave()

    run(test())


def test_a_refusal_stands_though_the_connection_was_lost_after_it(run: Run) -> None:
    async def test() -> None:
        for replies, expected in (
            (NO, [(Stage.MAIL, 550, False)] * 2),
            (OK + NO, [B_NO, (Stage.RCPT, 451, True)]),
            (OK + OK + NO, [(Stage.DATA, 451, True), B_NO]),
        ):
            async with Host([(len(GROUP), replies)], lingers=False) as host:
                session = await host.session()
                assert places(await offer(session)) == expected
                session.leave()

    run(test())


@pytest.mark.parametrize("place", range(4))
def test_421_is_the_last_word_wherever_it_comes(run: Run, place: int) -> None:
    async def test() -> None:
        for more in (b"", b"250 2.0.0 Ok\r\n354 Go on\r\n"):
            async with Host([(len(GROUP), b"".join(REPLIES[:place]) + b"421 4.3.2 Closing\r\n" + more)]) as host:
                session = await host.session()
                assert places(await offer(session)) == [(STAGES[place], 421, False)] * 2
                assert not session.usable
                session.leave()
            assert host.heard == [GROUP]
            assert host.rest == b""

    run(test())


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("nonsense", [b"hello\r\n", b"150 Hm\r\n", b"650 Hm\r\n", b"354 what?\r\n", b"x" * 100_000])
def test_what_is_no_answer_ends_it_there(run: Run, place: int, nonsense: bytes) -> None:
    if place == 3 and nonsense.startswith(b"354"):
        nonsense = b"250 what?\r\n"

    async def test() -> None:
        replies = b"".join(REPLIES[:place]) + nonsense + b"".join(REPLIES[place + 1 :])
        async with Host([(len(GROUP), replies)]) as host:
            session = await host.session()
            assert places(await offer(session)) == [(STAGES[place], 451, True)] * 2
            assert not session.usable
            session.leave()
        assert host.heard == [GROUP]
        assert host.rest == b""

    run(test())


@pytest.mark.parametrize("place", range(4))
def test_silence_ends_it_there(run: Run, place: int) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), b"".join(REPLIES[:place]))]) as host:
            session = await host.session(command=0.1)
            assert places(await offer(session)) == [(STAGES[place], 451, True)] * 2
            session.leave()

    run(test())


def test_each_reply_has_its_own_time(run: Run) -> None:
    async def test() -> None:
        lines = [OK, OK, OK, GO_ON]
        async with Host(
            [(len(GROUP), AGREED), (len(CONTENT), QUEUED)], lambda octets: lines if octets == AGREED else [octets]
        ) as host:
            host.pause = 0.2
            session = await host.session(command=0.5, final=5.0)
            assert places(await offer(session)) == [DELIVERED] * 2
            session.leave()

    run(test())


@pytest.mark.parametrize("answer", [b"", b"250", b"250-2.0.0 Ok\r\n", b"354 Go on\r\n", b"hello\r\n"])
def test_from_the_dot_on_there_is_doubt(run: Run, answer: bytes) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), OK + NO + OK + GO_ON), (len(CONTENT), answer)], lingers=False) as host:
            session = await host.session()
            assert places(await offer(session)) == [B_NO, (Stage.DOT, 451, True)]
            assert not session.usable
            session.leave()

    run(test())


# --- out of turn ---


def test_more_replies_than_commands_and_no_content_leaves(run: Run) -> None:
    async def test() -> None:
        for surplus in (OK, b"2", b"421 4.4.2 Bye\r\n"):
            async with Host([(len(GROUP), AGREED + surplus)]) as host:
                session = await host.session()
                assert places(await offer(session)) == [(Stage.CONTENT, 451, True)] * 2
                session.leave()
            assert host.rest == b""

    run(test())


def test_a_farewell_after_the_answer_changes_nothing_but_that_the_line_is_over(run: Run) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), AGREED), (len(CONTENT), QUEUED + b"421 4.4.2 Enough\r\n")]) as host:
            session = await host.session()
            assert places(await offer(session)) == [DELIVERED] * 2
            assert not session.usable
            assert places(await offer(session)) == [(Stage.MAIL, 451, True)] * 2
            session.leave()
        assert host.rest == b""

    run(test())


@pytest.mark.parametrize("lingers", [True, False], ids=["421", "closed"])
def test_what_a_host_does_while_nobody_asks_is_noticed(run: Run, lingers: bool) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), AGREED), (len(CONTENT), QUEUED)], lingers=lingers) as host:
            if lingers:
                host.steps = [*host.steps, (0, b"421 4.4.2 Idle for too long\r\n")]
                host.pause = 0.02
            session = await host.session()
            assert places(await offer(session)) == [DELIVERED] * 2
            await eventually(lambda: not session.usable)
            session.leave()

    run(test())


def test_a_cancelled_transaction_leaves_no_line_that_is_used_again(run: Run) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), OK)]) as host:
            session = await host.session()
            task = asyncio.ensure_future(offer(session))
            await eventually(lambda: bool(host.heard))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not session.usable
            session.leave()
        assert host.rest == b""

    run(test())


def test_an_address_that_would_be_two_commands_never_leaves(run: Run) -> None:
    async def test() -> None:
        async with Host([(len(GROUP), AGREED), (len(CONTENT), QUEUED)]) as host:
            session = await host.session()
            with pytest.raises(ValueError, match="control character"):
                await offer(session, batch("b@example.org>\r\nRCPT TO:<x@example.net"))
            assert session.usable
            assert places(await offer(session)) == [DELIVERED] * 2
            session.leave()

    run(test())
