"""Messages, verdicts and stores for tests of the spool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fakes import FakeClock
from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Priority, State
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Recipient
from sesrelay.mail.trace import Event
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Settlement, Submission
from sesrelay.spool.sqlite import SqliteSpool

NOW = 1_800_000_000.0
SES = LaneKey("ses", "us-east-1/AKIA")
MX = LaneKey("direct", "example.org")
BODY = b"Subject: x\r\n\r\nhello\r\n"


def quiet(what: str, error: BaseException | None = None) -> None:
    """Take trouble that a test provokes on purpose."""


async def opened(path: Path, clock: FakeClock | None = None, **options: object) -> SqliteSpool:
    return await SqliteSpool.open(path, **{"clock": clock or FakeClock(), "on_trouble": quiet, **options})  # type: ignore[arg-type]


def submission(
    serial: int = 1,
    *,
    recipients: Sequence[str | Recipient] = ("bob@example.org",),
    sender: str = "alice@example.com",
    lane: LaneKey = SES,
    priority: Priority = Priority.NORMAL,
    site: str = "site",
    state: State = State.QUEUED,
    due: float = NOW,
    content: bytes = BODY,
    message_id: str = "",
    accepted: float | None = None,
    clock: float | None = None,
    report: Descent | None = None,
) -> Submission:
    """Make a message; `serial` orders it: its queue id and acceptance grow with it. `clock`: by which its id was made."""
    accepted = NOW + serial if accepted is None else accepted
    name = queue_id.new(accepted if clock is None else clock, serial)
    rcpts = tuple(Recipient(each) if isinstance(each, str) else each for each in recipients)
    message = Message(
        name, Envelope(sender, rcpts), Origin("127.0.0.1:25", "127.0.0.1", "client.example"), len(content), accepted,
        (sender,) if sender else (), message_id, "a subject", report,
    )  # fmt: skip
    attempts = 1 if state is State.IN_FLIGHT else 0
    deliveries = tuple(
        Delivery(DeliveryId(name, n), message, each, Placement("route", lane, priority, site), state, attempts, due=due)
        for n, each in enumerate(rcpts)
    )
    events = (Event(accepted, "accepted"), *(Event(accepted, "routed", each.address, *lane) for each in rcpts))
    return Submission(message, content, deliveries, events)


def ids(made: Submission) -> list[DeliveryId]:
    return [each.id for each in made.deliveries]


def delivered(remote_id: str | None = "r-1") -> Verdict:
    return Verdict(State.DELIVERED, NOW, 1, 0, reply="250 2.0.0 Ok", remote_id=remote_id, end="delivered")


def deferred(due: float = NOW + 30.0) -> Verdict:
    return Verdict(State.QUEUED, due, 1, 0, reason="later", reply="451 4.0.0 Later")


def failed() -> Verdict:
    return Verdict(State.FAILED, NOW, 1, 0, reply="550 5.1.1 Nobody", end="failed", report="failed")


def held(reason: str = "in_doubt") -> Verdict:
    return Verdict(State.HELD, NOW, 1, 3, "ses", reason)


def settlement(
    made: Submission, verdict: Verdict, *, events: Sequence[Event] = (), reports: Sequence[Submission] = ()
) -> Settlement:
    return Settlement(dict.fromkeys(ids(made), verdict), tuple(events), tuple(reports))


def as_in_flight(delivery: Delivery, retry_at: float) -> Delivery:
    return replace(delivery, state=State.IN_FLIGHT, attempts=delivery.attempts + 1, due=retry_at)
