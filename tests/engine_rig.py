"""An engine over a spool in memory, with ways out that do as they are told: for the tests of `delivery`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes import FakeClock
from sesrelay.delivery.intake import Acceptance
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.delivery import Batch, DeliveryId, Priority, State
from sesrelay.mail.envelope import Envelope, Origin, Recipient
from sesrelay.mail.filed import Filed
from sesrelay.mail.outcome import Delivered, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.budget import ByteBudget
from sesrelay.policy.ladder import FOLDER, Ladder
from sesrelay.policy.pace import Pace
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.routing import RouteRule, RoutingTable
from sesrelay.seams import Content, Filter, MessageRecord, Pause, Transport
from sesrelay.spool.memory import MemorySpool
from sesrelay.transport.folder import FolderTransport

OK = Reply(250, "2.0.0", "Ok")
CONTENT = b"From: a@example.com\r\nSubject: hi\r\n\r\nBody\r\n"
Answer = Callable[[str], Outcome]
Rules = Mapping[str, tuple[str, ...] | Mapping[str, Any]]


@dataclass
class ScriptedTransport:
    """Implements `seams.Transport`. `answer` decides each recipient's outcome; `gate` lets calls wait."""

    name: str
    answer: Answer = lambda recipient: Delivered(OK, "remote-1")
    batch_limit: int = 50
    concurrency: int = 4
    failover_after: float = 600.0
    by_domain: bool = False
    bucket: Pace = field(default_factory=lambda: Pace(None))
    gate: asyncio.Event | None = None
    seen: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    closed: bool = False

    def start(self) -> None:
        return None

    def nexthop(self, recipient: str) -> str:
        return recipient.rpartition("@")[2] if self.by_domain else f"hop-{self.name}"

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return self.bucket.take(recipients, now)

    def give_back(self, recipients: int) -> None:
        self.bucket.give_back(recipients)

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            addresses = tuple(delivery.recipient.address for delivery in batch.deliveries)
            self.seen.append((addresses, await content.read()))
            return {delivery.id: self.answer(delivery.recipient.address) for delivery in batch.deliveries}
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed = True


class Witness:
    """Implements `seams.Observer` by writing down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.pauses: list[Pause] = []

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *facts, **more: self.told.append((event, *facts, more))

    def paused(self, pause: Pause) -> None:
        self.pauses.append(pause)

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        self.told.append(("trouble", what, error))

    def events(self, name: str) -> list[tuple[object, ...]]:
        return [each for each in self.told if each[0] == name]


class Rig:
    """`rules` maps a sender pattern to transports, or to a whole rule's options; what it does not name goes to the first
    transport. `folder` is where a bounce's ladder ends; without one it ends held.
    """

    def __init__(
        self,
        *transports: ScriptedTransport,
        rules: Rules | None = None,
        retry: RetryPolicy | None = None,
        memory: ByteBudget | None = None,
        ladder: Ladder | None = None,
        folder: Path | None = None,
        before: Rig | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        """`before`: the life of the relay that came before this one, whose clock and store go on."""
        self.ladder = ladder or Ladder()
        self.folder = folder
        self.clock = before.clock if before else clock or FakeClock()
        self.witness = Witness()
        self.spool = before.spool if before else MemorySpool(self.clock)
        self.retry = retry or RetryPolicy((30.0, 120.0), max_age=10_000.0, delay_warning=None)
        self.scheduler = Scheduler(self.spool, self.snapshot(*transports, rules=rules), self.clock, self.witness, memory)
        self.acceptance = Acceptance(self.spool, self.scheduler, self.clock, self.witness)

    def snapshot(self, *transports: ScriptedTransport, rules: Rules | None = None) -> Snapshot:
        made = [
            RouteRule(pattern, "c:1", pattern, **({"transports": ways} if isinstance(ways, tuple) else ways))
            for pattern, ways in (rules or {}).items()
        ]
        default = RouteRule("default_route", "c:9", "default", (transports[0].name,))
        ways: dict[str, Transport] = {transport.name: transport for transport in transports}
        if self.folder is not None:
            ways[FOLDER] = FolderTransport(FOLDER, self.folder, "relay.example.net", self.witness)
        return Snapshot(
            "relay.example.net", LocalMail("relay.example.net", "relay.example.net", {"root": "ops@example.com"}),
            RoutingTable(made, default), ways, self.retry, ladder=self.ladder,
        )  # fmt: skip

    async def submit(
        self,
        *recipients: str | Recipient,
        sender: str = "a@example.com",
        content: bytes | Filed = CONTENT,
        release: float | None = None,
    ) -> str:
        """Accept a message and return its queue id, or the refusal's text."""
        made = tuple(each if isinstance(each, Recipient) else Recipient(each) for each in recipients)
        reply = await self.acceptance.submit(
            Envelope(sender, made, release=release), content, Origin("test", "127.0.0.1", "client")
        )
        return reply.text.rpartition(" ")[2] if reply.code == 250 else str(reply)

    async def quiet(self) -> None:
        """Wait until everything that can happen at this moment of the clock has happened."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def die(self) -> None:
        """End as a process does that is killed: what memory held is gone."""
        await self.scheduler.drain(0.0)
        self.spool.forget_claims()
        self.clock.advance(1.0)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock and let every lane look at it."""
        self.clock.advance(seconds)
        for lane in self.scheduler._lanes.values():
            self.scheduler._pump.run(lane)
        await self.scheduler.refresh()
        await self.quiet()

    async def record(self, queue_id: str) -> MessageRecord:
        found = await self.spool.show(queue_id)
        assert found is not None
        return found

    async def states(self, queue_id: str) -> list[State]:
        return [each.delivery.state for each in (await self.record(queue_id)).deliveries]

    async def everything(self) -> list[MessageRecord]:
        return list(await self.spool.recent(1000))

    async def waiting(self) -> int:
        return len(await self.spool.list(Filter(), self.clock.wall(), None, 1000))
