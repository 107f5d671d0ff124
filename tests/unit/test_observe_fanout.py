"""The fan-out: every sink hears every event, and no sink's fault reaches the mail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.outcome import PauseReason
from sesrelay.mail.reply import Reply
from sesrelay.observe.fanout import Fanout
from sesrelay.observe.metrics import MetricsSink
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Observer, Pause

RECIPIENT = Recipient("reader@example.org")
MESSAGE = Message("0h2k3j4l5m6n7", Envelope("blog@example.com", (RECIPIENT,)), Origin("127.0.0.1:25"), 1, 0.0)
DELIVERY = Delivery(DeliveryId(MESSAGE.id, 0), MESSAGE, RECIPIENT, Placement("example", LaneKey("t", "n")))
PAUSE = Pause("t", None, PauseReason.QUOTA, 0.0, 1.0)
EVENTS: dict[str, tuple[Any, ...]] = {
    "connected": ("l",),
    "disconnected": ("l",),
    "accepted": (MESSAGE, 0.1),
    "refused": (MESSAGE.origin, Reply(550, "5.7.1", "no"), "policy"),
    "attempted": (Batch(DELIVERY.placement.lane, (DELIVERY,)), {}, 0.1, None),
    "settled": (DELIVERY, Verdict(State.DELIVERED, 0.0, 1, 0, end="delivered")),
    "reported": (MESSAGE, MESSAGE),
    "paused": (PAUSE,),
    "resumed": (PAUSE,),
    "quota": ("t", 1.0, 2.0, 3.0),
    "account": ("t", AccountStanding("us-east-1", "AKIAX")),
    "reloaded": (True, ""),
    "trouble": ("what", ValueError("x")),
    "notice": ("what",),
}


class Broken:
    """A sink of which every method raises."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the disk is full")

        fail.__self__ = self  # type: ignore[attr-defined]
        fail.__name__ = name
        return fail


class Listening:
    """A sink that keeps the names of what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **facts: self.heard.append((name, args, facts))


def test_the_table_above_names_every_event() -> None:
    assert set(EVENTS) == {name for name in vars(Observer) if not name.startswith("_")}


@pytest.mark.parametrize("event", EVENTS)
def test_a_broken_sink_keeps_nothing_from_the_others(event: str, caplog: pytest.LogCaptureFixture) -> None:
    before, after = Listening(), Listening()
    fanout = Fanout([before, Broken(), after])  # type: ignore[list-item]
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            getattr(fanout, event)(*EVENTS[event])
    assert before.heard == after.heard == [(event, EVENTS[event], {})] * 3
    assert len(caplog.records) == 1
    assert f"Broken.{event}" in caplog.text


def test_facts_of_any_name_get_through() -> None:
    sink = Listening()
    fanout = Fanout([sink])  # type: ignore[list-item]
    fanout.trouble("odd", None, method="m", self_="s", args=1)
    assert sink.heard == [("trouble", ("odd", None), {"method": "m", "self_": "s", "args": 1})]


def test_it_is_an_observer() -> None:
    observer: Observer = Fanout([MetricsSink(FakeClock())])
    observer.accepted(MESSAGE, 0.1)
