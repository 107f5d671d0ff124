"""What the tests of the listener share: a recording intake and observer, and a real listener on either event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loops import LOOPS
from sesrelay.listener import ListenerOptions, ListenerServer, bind
from sesrelay.listener.options import DoorOptions
from sesrelay.listener.passwords import Verifier
from sesrelay.mail.envelope import Envelope, Origin
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.budget import Share
from sesrelay.policy.session_rules import NO_RULES, SessionRules

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OPTIONS = ListenerOptions(
    hostname="mail.example.com",
    local=LocalMail("mail.example.com", "mail.example.com", {"root": "ops@example.com"}),
    networks=(ipaddress.ip_network("127.0.0.0/8"),),
    message_size=2000,
    recipients=3,
)


def options(**changes: Any) -> ListenerOptions:
    if "unaliased" in changes:
        changes["local"] = replace(OPTIONS.local, unaliased=changes.pop("unaliased"))
    door = {name: changes.pop(name) for name in ("tls", "auth") if name in changes}
    if door:
        changes["doors"] = {"127.0.0.1:0": DoorOptions(**door)}
    return replace(OPTIONS, **changes)


@dataclass
class RecordingIntake:
    """Keeps what is submitted; refuses the sender domain refused.example; `answer` may delay, refuse or raise."""

    taken: list[tuple[Envelope, bytes, Origin]] = field(default_factory=list)
    answer: Callable[[], Awaitable[Reply]] | None = None

    def now(self) -> float:
        return NOW

    def check_sender(self, envelope_sender: str, origin: Origin, rules: SessionRules = NO_RULES) -> Reply | None:
        if envelope_sender.endswith("@refused.example"):
            return Reply(550, "5.7.1", "This relay has no route for this sender's domain")
        if envelope_sender.startswith("bug@"):
            raise RuntimeError("/var/lib/secret/queue.db")
        return None

    async def submit(
        self,
        envelope: Envelope,
        content: bytes,
        origin: Origin,
        changes: tuple[str, ...] = (),
        rules: SessionRules = NO_RULES,
    ) -> Reply:
        reply = await self.answer() if self.answer else Reply(250, "2.0.0", "Ok: queued as 0123456789AB")
        if reply.positive:
            self.taken.append((envelope, content, origin))
        return reply


@dataclass
class RecordingObserver:
    """Keeps what the listener tells; everything else of the Observer is not its to call."""

    connections: int = 0
    open: int = 0
    refusals: list[tuple[Origin, Reply, str]] = field(default_factory=list)
    troubles: list[BaseException | None] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # of the troubles

    def connected(self, listener: str) -> None:
        self.connections += 1
        self.open += 1

    def disconnected(self, listener: str) -> None:
        self.open -= 1

    def refused(self, origin: Origin, reply: Reply, reason: str) -> None:
        self.refusals.append((origin, reply, reason))

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        self.troubles.append(error)
        self.words.append(what)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.refusals]


@dataclass
class Rig:
    """A listener on a free port."""

    server: ListenerServer
    intake: RecordingIntake
    observer: RecordingObserver
    host: str
    port: int

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection(self.host, self.port))

    async def say(self, pieces: Sequence[bytes]) -> bytes:
        """Send everything at the given splits, then return all that the server says until it closes."""
        client = await self.connect()
        hearing = asyncio.ensure_future(client.rest())  # at once: what is unread when a reset comes is lost
        try:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    if client.writer.is_closing():
                        break
                    client.writer.write(piece)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            return await hearing
        finally:
            client.writer.close()


@dataclass
class Client:
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self) -> str:
        return (await asyncio.wait_for(self.reader.readline(), 10)).decode().rstrip("\r\n")

    async def reply(self) -> str:
        """Return the last line of the next reply."""
        while True:
            line = await self.line()
            if line[3:4] != "-":
                return line

    async def do(self, command: bytes) -> str:
        self.writer.write(command + b"\r\n")
        return await self.reply()

    async def begin(self) -> None:
        """Go as far as the 354."""
        await self.reply()
        for command in (b"EHLO client.example", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>"):
            assert (await self.do(command)).startswith("250")
        assert (await self.do(b"DATA")).startswith("354")

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(65536), 10):
                got += piece
        return bytes(got)


@contextlib.asynccontextmanager
async def rig(
    chosen: ListenerOptions = OPTIONS,
    intake: RecordingIntake | None = None,
    verifier: Verifier | None = None,
    memory: Share | None = None,
) -> AsyncIterator[Rig]:
    """Run a listener on a free port of 127.0.0.1."""
    intake, observer = intake or RecordingIntake(), RecordingObserver()
    server = ListenerServer(intake, observer, lambda: chosen, verifier, memory)  # type: ignore[arg-type]
    await server.listen("127.0.0.1:0", bind("127.0.0.1:0"))
    host, port = server.addresses()["127.0.0.1:0"][:2]  # type: ignore[index]
    try:
        yield Rig(server, intake, observer, host, port)
    finally:
        await server.drain(0.2)


def run(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` on a new loop of that kind; a complaint to the loop's exception handler fails the test."""
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        result = runner.run(main)
    assert not complaints
    return result
