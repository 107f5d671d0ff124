"""A request to SES that is cut off: what cannot have arrived as a whole is certainly not sent, and an answer that comes early is read."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import HELLO, Bytes, batch, eventually
from http_hosts import HEAD_END, length, narrow, narrow_host, reset
from loops import Run
from ses_world import PaperSession, world
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.policy.stopping import CUT
from sesrelay.testing.ses import SesStandIn
from sesrelay.transport.ses import opening, pool
from sesrelay.transport.ses.body import Body, measured
from sesrelay.transport.ses.connection import END, Answered, Connection, Lost, NotSent
from sesrelay.transport.ses.pool import Pool

LARGE = 30_000_000  # octets in base64: more than the kernel keeps for both ends of a connection
SMALL = 3_000
EARLY = b"HTTP/1.1 %d Early\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly"


@dataclass
class Tls:
    """A certificate for 127.0.0.1, and where its issuer is."""

    context: ssl.SSLContext | None = None
    ca_file: str | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.context else "http"


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Tls:
    if request.param == "plain":
        return Tls()
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca"))
    return Tls(context, str(tmp_path / "ca"))


@dataclass
class Cutting:
    """A server that reads the header and `octets` of the body, says `answer`, and then does not read on: it resets, unless it `stays`."""

    octets: int
    answer: bytes = b""
    stays: bool = False
    body: int = 0  # octets of it that were read
    whole: bool = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            head = await reader.readuntil(HEAD_END)
            wanted = min(self.octets, length(head))
            while self.body < wanted and (piece := await reader.read(min(wanted - self.body, 65_536))):
                self.body += len(piece)
            self.whole = self.body == length(head)
            if self.answer:
                writer.write(self.answer)
                await writer.drain()
            if self.stays:
                await asyncio.sleep(3600)
            if self.answer:
                await asyncio.sleep(0.05)
        reset(writer)


@asynccontextmanager
async def at(server: Cutting, tls: Tls) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await server(reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context)
    yield f"{tls.scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def post(server: Cutting, tls: Tls, octets: int, **options: Any) -> Answered | NotSent | Lost:
    """Post a body of about `octets`, and return what came of it."""
    way_out = Pool(**options)
    body = await measured(Body(b"head=", b"x" * (octets * 3 // 4), b"&tail"))
    try:
        async with at(server, tls) as url:
            return await way_out.post(url, {"Content-Type": "text/plain"}, body, tls.ca_file)
    finally:
        await way_out.close()


def test_a_reset_while_the_body_leaves_is_certainly_no_acceptance(run: Run, tls: Tls) -> None:
    server = Cutting(100_000)
    found = run(post(server, tls, LARGE))
    assert isinstance(found, NotSent)
    assert found.cut
    assert not server.whole


def test_so_is_a_time_out_while_the_body_leaves(run: Run, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TOTAL", 1.0)
    found = run(post(Cutting(100_000, stays=True), tls, LARGE))
    assert isinstance(found, NotSent)
    assert found.cut


@pytest.mark.parametrize("octets", [SMALL, 200_000, 3_000_000])
@pytest.mark.parametrize("less", [0, 100])
def test_what_may_have_arrived_is_in_doubt(run: Run, tls: Tls, octets: int, less: int) -> None:
    async def whole() -> int:
        return (await measured(Body(b"head=", b"x" * (octets * 3 // 4), b"&tail"))).size

    server = Cutting(run(whole()) - less)
    assert isinstance(run(post(server, tls, octets)), Lost)
    assert server.whole is (less == 0)


def test_a_small_body_that_is_not_read_is_in_doubt(run: Run, tls: Tls) -> None:
    assert isinstance(run(post(Cutting(0), tls, SMALL)), Lost)


def test_no_answer_to_a_whole_request_is_in_doubt(run: Run, tls: Tls) -> None:
    server = Cutting(LARGE * 2, stays=True)
    assert isinstance(run(post(server, tls, 3_000_000, read_timeout=0.5)), Lost)


def test_a_body_that_the_kernel_has_not_taken_is_not_sent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def narrowly() -> Answered | NotSent | Lost:
        server = Cutting(0)
        listening = narrow_host()
        pool = Pool()
        body = await measured(Body(b"", b"x" * 300_000))
        async with await asyncio.start_server(server, sock=listening):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            try:
                return await pool.post(url, {"Content-Type": "text/plain"}, body, None)
            finally:
                await pool.close()

    monkeypatch.setattr(opening, "reach", narrow)
    found = run(narrowly())
    assert isinstance(found, NotSent)
    assert found.cut


@pytest.mark.parametrize("seed", range(3))
def test_wherever_it_is_cut_nothing_that_arrived_counts_as_not_sent(run: Run, tls: Tls, seed: int) -> None:
    chance = random.Random(seed)
    for octets in (2_000, 70_000, 150_000, 1_400_000, 2_000_000):
        server = Cutting(int(octets * chance.choice([0.1, 0.9, 0.99, 1.1])))
        found = run(post(server, tls, octets))
        assert isinstance(found, NotSent | Lost)
        assert not (server.whole and isinstance(found, NotSent))


@pytest.mark.parametrize("status", [413, 503])
@pytest.mark.parametrize("stays", [False, True])
def test_an_answer_that_comes_before_the_body_was_read_is_read(run: Run, tls: Tls, status: int, stays: bool) -> None:
    found = run(post(Cutting(100_000, answer=EARLY % status, stays=stays), tls, LARGE))
    assert isinstance(found, Answered)
    assert (found.status, found.body, found.whole) == (status, b"early", False)


def test_a_connection_goes_on_after_a_large_body(run: Run, tls: Tls) -> None:
    async def thrice() -> list[str]:
        seen: list[str] = []
        pool = Pool()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while head := await reader.readuntil(HEAD_END):
                    assert (await reader.readexactly(length(head))).endswith(b"&tail")
                    seen.append(str(writer.get_extra_info("peername")))
                    writer.write(b"HTTP/1.1 200 Ok\r\nContent-Length: 2\r\n\r\nok")
                    await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context) as listening:
            url = f"{tls.scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            for octets in (5_000_000, 100, 300_000):
                body = await measured(Body(b"head=", b"x" * octets, b"&tail"))
                found = await pool.post(url, {"Content-Type": "text/plain"}, body, tls.ca_file)
                assert isinstance(found, Answered)
                assert (found.body, found.whole) == (b"ok", True)
            await pool.close()
        return seen

    seen = run(thrice())
    assert seen == [seen[0]] * 3


async def test_a_message_that_is_cut_off_waits_alone_and_may_go_another_way() -> None:
    async def sent(server: Cutting) -> Outcome:
        async with at(server, Tls()) as url, world(url, session=PaperSession(url)) as w:
            return (await w.send("b@example.org", content=HELLO + b"x\r\n" * 8_000_000))[0]

    for answer in (b"", EARLY % 413):
        outcome = await sent(Cutting(100_000, answer=answer))
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.MESSAGE, PauseReason.UNAVAILABLE, False)
    unavailable = await sent(Cutting(100_000, answer=EARLY % 503))
    assert isinstance(unavailable, Deferred)
    assert (unavailable.scope, unavailable.ambiguous) == (Scope.NEXTHOP, False)


async def test_an_acceptance_that_comes_too_early_is_a_doubt() -> None:
    body = b'{"MessageId": "0100-1"}'
    answer = b"HTTP/1.1 200 Ok\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    server = Cutting(100_000, answer=answer)
    async with at(server, Tls()) as url, world(url, session=PaperSession(url), api="v2") as w:
        (outcome,) = await w.send("b@example.org", content=HELLO + b"x\r\n" * 8_000_000)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.ambiguous) == (Scope.MESSAGE, True)


class Closing(asyncio.Transport):
    """A transport that is about to be gone."""

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("octets", [1, 200_000])
async def test_what_cannot_be_written_any_more_has_not_left(octets: int) -> None:
    transport = Closing()
    connection = Connection(transport)
    connection.connection_made(transport)
    found = await connection.post(b"POST / HTTP/1.1\r\n\r\n", await measured(Body(b"", b"x" * octets)), 1.0, connection.born + 5.0)
    assert found == NotSent("the connection was closed")


class Slow(asyncio.Transport):
    """A transport that keeps what is written until it is told that it has left."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(self)
        self.written = b""
        self.waits = 0
        self.high = 65_536
        self.connection.connection_made(self)

    def write(self, data: Any) -> None:
        self.written += data
        self.waits += len(data)
        self.look()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = 65_536 if high is None else high
        self.look()

    def look(self) -> None:
        if self.waits > self.high:
            self.connection.pause_writing()

    def left(self, octets: int) -> None:
        self.waits -= octets
        if self.waits <= self.high // 4:
            self.connection.resume_writing()

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


async def test_the_end_is_kept_back_until_the_last_octet_before_it_has_left() -> None:
    transport = Slow()
    connection = transport.connection
    body = await measured(Body(b"head=", b"x" * 200_000, b"&tail"))
    task = asyncio.ensure_future(connection.post(b"HEAD", body, 5.0, connection.born + 5.0))
    while len(transport.written) < 4 + body.size - END:
        await asyncio.sleep(0)
        if transport.waits > transport.high:
            transport.left(transport.waits - 1_000)
    for _ in range(20):
        await asyncio.sleep(0)
    transport.left(transport.waits - 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(transport.written) == 4 + body.size - END
    transport.left(1)
    while not transport.written.endswith(b"&tail"):
        await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await task).body == b"ok"
    assert transport.high == 65_536
    assert connection.usable


async def test_a_large_message_is_still_taken() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        (outcome,) = await w.send("b@example.org", content=HELLO + b"x\r\n" * 3_000_000)
    assert isinstance(outcome, Delivered)
    assert ses.journal[0].raw.endswith(b"x\r\n" * 3_000_000)


def test_what_is_cancelled_while_the_body_leaves_is_in_no_doubt(run: Run, tls: Tls) -> None:
    async def cut(octets: int) -> list[Outcome]:
        server = Cutting(100, stays=True)
        async with at(server, tls) as url, world(url, session=PaperSession(url, ca_bundle=tls.ca_file)) as w:
            sending = asyncio.create_task(w.transport.deliver(batch(), Bytes(HELLO + b"x\r\n" * (octets // 3))))
            await eventually(lambda: server.body > 0)
            await asyncio.sleep(0.2)  # the kernel has what it takes
            sending.cancel()
            return list((await sending).values())

    assert run(cut(LARGE // 2)) == [CUT]
    with pytest.raises(asyncio.CancelledError):
        run(cut(SMALL))
