"""The document of an exported message, read back: what no queue could hold is refused, each for itself."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest

from sesrelay.control import envelopes
from sesrelay.mail.delivery import State
from sesrelay.mail.trace import Event
from sesrelay.seams import DeliveryRecord, Document, MessageRecord, Unfit
from spool_world import BODY, NOW, submission


@pytest.fixture
def document() -> Document:
    made = submission(1, message_id="<1@x.example>", state=State.HELD)
    event = Event(NOW, "attempt", "bob@example.org", duration=0.5, changes=("removed Bcc",), host="192.0.2.1")
    return envelopes.document(MessageRecord(made.message, tuple(map(DeliveryRecord, made.deliveries)), (event,)))


def test_what_is_read_back_is_what_was_written(document: Document) -> None:
    read = envelopes.submission(document, BODY, NOW)
    assert read.message == submission(1, message_id="<1@x.example>").message
    assert read.events == (Event(NOW, "attempt", "bob@example.org", duration=0.5, changes=("removed Bcc",), host="192.0.2.1"),)


def test_an_event_of_an_older_export_names_no_host(document: Document) -> None:
    del document["events"][0]["host"]
    assert envelopes.submission(document, BODY, NOW).events[0].host is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("message_id", 1.5),
        ("message_id", [[]]),
        ("subject", {}),
        ("header_from", "a@example.com"),
        ("changes", [None]),
        ("envid", "a\r\nRCPT TO:<b@example.org>"),
        ("recipients.0.orcpt", "rfc822;a\x00b"),
        ("recipients.0.attempts", 2**70),
        ("recipients.0.attempts", -1),
        ("recipients.0.doubts", "many"),
        ("accepted", "9999-12-31T23:59:59.999999Z"),
        ("accepted", "0001-01-01T00:00:00+14:00"),
        ("release", "9999-12-31T23:59:59.999999-12:00"),
        ("events.0.time", "9999-12-31T23:59:59.999999Z"),
        ("events.0.event", "guessed"),
        ("events.0.reply", {"code": 250}),
        ("events.0.duration", [1]),
        ("events.0.duration", math.nan),
        ("events.0.duration", "inf"),
    ],
)
def test_what_no_queue_holds_is_refused(document: Document, place: str, value: object) -> None:
    changed: Any = deepcopy(document)
    *way, last = place.split(".")
    inside = changed
    for step in way:
        inside = inside[int(step) if step.isdigit() else step]
    assert last in inside
    inside[last] = value
    with pytest.raises(Unfit):
        envelopes.submission(changed, BODY, NOW)
