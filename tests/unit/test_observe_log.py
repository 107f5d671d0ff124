"""Log lines: one line an event, JSON that parses, nothing of a stranger's that a terminal would obey."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeClock
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, PauseReason
from sesrelay.mail.reply import Reply
from sesrelay.observe.events import BURST, BURST_CHEAP, BURST_TROUBLE, LogSink
from sesrelay.observe.flood import WINDOW
from sesrelay.observe.log import BURST_LIBRARY, Format, Level, configure
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Pause

NASTY = "evil\r\nOct 1 fake line\x1b[2J\x00\x7f\x9b\u202e\u2028\ud800"
RECIPIENT = Recipient("reader@example.org")
MESSAGE = Message(
    "0h2k3j4l5m6n7",
    Envelope("blog@example.com", (RECIPIENT,)),
    Origin("127.0.0.1:25", "127.0.0.1", "web", user="blog", tls="TLSv1.3"),
    4096,
    1_799_999_990.0,
    message_id="<one@example.com>",
    subject="the canary in the subject",
)
DELIVERY = Delivery(DeliveryId(MESSAGE.id, 0), MESSAGE, RECIPIENT, Placement("example", LaneKey("ses-main", "us-east-1")))
OK = Reply(250, "2.0.0", "Ok 0100-abc")


class Log:
    """A sink and the lines it wrote."""

    def __init__(self, format: Format = "json", level: Level = "info") -> None:
        self.clock = FakeClock()
        self.stream = io.BytesIO()
        self.logger = configure(format=format, level=level, clock=self.clock, stream=self.stream)
        self.sink = LogSink(self.logger, self.clock)

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def settle(log: Log, state: State, **more: Any) -> dict[str, Any]:
    log.sink.settled(DELIVERY, Verdict(state, log.clock.now + 60, 1, 0, **more))
    return log.lines[-1]


def test_delivered_has_what_one_greps_for() -> None:
    line = settle(Log(), State.DELIVERED, reply=str(OK), remote_id="0100-abc", end="delivered")
    assert line == {
        "time": "2027-01-15T08:00:00.000Z", "level": "info", "event": "delivered", "queue_id": MESSAGE.id,
        "sender": "blog@example.com", "recipient": "reader@example.org", "route": "example", "transport": "ses-main",
        "nexthop": "us-east-1", "attempts": 1, "seconds": 10.0, "reply": "250 2.0.0 Ok 0100-abc", "remote_id": "0100-abc",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "end", "event", "level"),
    [
        (State.QUEUED, None, "deferred", "info"),
        (State.FAILED, "expired", "failed", "info"),
        (State.HELD, None, "held", "warning"),
    ],
)
def test_every_verdict_has_its_event(state: State, end: Any, event: str, level: str) -> None:
    line = settle(Log(), state, end=end, reason="in_doubt", reply="450 4.2.0 later")
    assert (line["event"], line["level"], line["queue_id"], line["reason"]) == (event, level, MESSAGE.id, "in_doubt")
    assert line.get("outcome") == end
    assert (line.get("next_attempt") == "2027-01-15T08:01:00.000Z") is (state is State.QUEUED)


def test_accepted_and_refused() -> None:
    log = Log()
    log.sink.accepted(MESSAGE, 0.0012345678)
    log.sink.refused(MESSAGE.origin, Reply(550, "5.7.1", "no"), "policy")
    accepted, refused = log.lines
    assert accepted["seconds"] == 0.001235
    assert (accepted["queue_id"], accepted["recipients"], accepted["user"]) == (MESSAGE.id, 1, "blog")
    assert (refused["event"], refused["reply"], refused["reason"]) == ("refused", "550 5.7.1 no", "policy")


CROWDED = Reply(421, "4.7.0", "Too many connections")


def test_a_flood_of_refusals_is_a_few_lines_and_says_so() -> None:
    log = Log()
    for _ in range(1000):
        log.sink.refused(MESSAGE.origin, CROWDED, "limits")
    log.sink.refused(MESSAGE.origin, Reply(550, "5.7.1", "no"), "policy")
    assert [line["reason"] for line in log.lines] == ["limits"] * BURST_CHEAP + ["policy"]
    assert ["note" in line for line in log.lines] == [False] * (BURST_CHEAP - 1) + [True, False]
    assert "only counted for 10 s" in log.lines[BURST_CHEAP - 1]["note"]
    for _ in range(50):
        log.sink.refused(MESSAGE.origin, Reply(550, "5.7.1", "no"), "policy")  # what somebody will ask about is all there
    assert sum(line["reason"] == "policy" for line in log.lines) == 51


@pytest.mark.parametrize(
    "after",
    [
        lambda sink: sink.connected("a"),
        lambda sink: sink.disconnected("a"),
        lambda sink: sink.accepted(MESSAGE, 0.1),
        lambda sink: sink.refused(MESSAGE.origin, CROWDED, "limits"),
        lambda sink: sink.refused(MESSAGE.origin, CROWDED, "policy"),
    ],
)
def test_what_comes_after_a_flood_tells_its_number_once(after: Callable[[LogSink], None]) -> None:
    log = Log()
    for _ in range(1000):
        log.sink.refused(MESSAGE.origin, CROWDED, "limits")
    log.clock.advance(WINDOW / 2)
    log.sink.disconnected("a")
    assert all(line["event"] == "refused" for line in log.lines)  # it is not over yet
    log.clock.advance(WINDOW / 2)
    after(log.sink)
    after(log.sink)
    log.clock.advance(WINDOW)
    after(log.sink)
    told = [line for line in log.lines if line["event"] == "not_shown"]
    assert [(line["of"], line["kind"], line["lines"]) for line in told] == [("refused", "limits", 1000 - BURST_CHEAP)]


def test_no_reason_floods_the_log() -> None:
    log = Log()
    for _ in range(5000):  # as somebody provokes who names one recipient too many in a loop
        log.sink.refused(MESSAGE.origin, Reply(452, "4.5.3", "Too many recipients"), "recipients")
    assert len(log.lines) == BURST


def test_neither_trouble_nor_notices_nor_a_library_floods_the_log() -> None:
    log = Log()
    for _ in range(500):
        log.sink.trouble("the disk is full", OSError(28, "No space left on device"))
        log.sink.notice("a message stays for now")
        logging.getLogger("asyncio").error("socket.accept() out of system resource")
    log.sink.trouble("something else")
    assert [line.get("what") for line in log.lines if line["event"] == "trouble"] == ["the disk is full"] * BURST_TROUBLE + [
        "something else"
    ]
    assert sum(line["event"] == "library" for line in log.lines) == BURST_LIBRARY
    assert sum(line["event"] == "notice" for line in log.lines) == BURST_TROUBLE
    log.clock.advance(WINDOW)
    log.sink.trouble("the disk is full")
    logging.getLogger("asyncio").error("and so on")
    told = {(line["of"], line["kind"]): line["lines"] for line in log.lines if line["event"] == "not_shown"}
    assert told == {
        ("trouble", "the disk is full"): 500 - BURST_TROUBLE,
        ("notice", "a message stays for now"): 500 - BURST_TROUBLE,
        ("library", "asyncio"): 500 - BURST_LIBRARY,
    }
    assert [line["event"] for line in log.lines[-5:]] == ["not_shown", "not_shown", "trouble", "not_shown", "library"]


def test_attempts_are_counted_by_outcome_at_debug_only() -> None:
    quiet, loud = Log(), Log(level="debug")
    outcomes = {
        DeliveryId(MESSAGE.id, n): outcome
        for n, outcome in enumerate((Delivered(OK), Delivered(OK), Failed(OK), Held(OK, "x"), Deferred(OK, ambiguous=True)))
    }
    for log in (quiet, loud):
        log.sink.attempted(Batch(DELIVERY.placement.lane, (DELIVERY,)), outcomes, 0.25, 0.5)
    assert quiet.text == ""
    line = loud.lines[0]
    assert (line["delivered"], line["failed"], line["held"], line["ambiguous"]) == (2, 1, 1, 1)


def test_pauses_say_the_remedy() -> None:
    log = Log()
    pause = Pause("ses-main", None, PauseReason.CREDENTIALS, log.clock.now - 5, log.clock.now + 60, "mend it", "example.com")
    log.sink.paused(pause)
    log.sink.resumed(pause)
    assert (log.lines[0]["level"], log.lines[0]["remedy"], log.lines[0]["domain"]) == ("warning", "mend it", "example.com")
    assert (log.lines[1]["event"], log.lines[1]["seconds"]) == ("resumed", 5.0)


@pytest.mark.parametrize("format", ["json", "console"])
def test_what_a_stranger_says_stays_on_its_line(format: Format) -> None:
    log = Log(format)
    log.sink.refused(Origin("127.0.0.1:25", "127.0.0.1", NASTY), Reply(550, "5.5.2", NASTY), "syntax")
    raw = log.stream.getvalue()
    assert raw.count(b"\n") == 1
    assert all(char == "\n" or char.isprintable() for char in raw.decode())
    if format == "json":
        assert log.lines[0]["helo"] == NASTY


def test_letters_of_all_languages_stay_readable() -> None:
    log = Log()
    log.sink.notice("started", hostname="bücher.example")
    assert "bücher.example" in log.text


def test_subjects_and_secrets_never_enter() -> None:
    for format in ("json", "console"):
        log = Log(format, "debug")
        log.sink.accepted(MESSAGE, 0.001)
        log.sink.attempted(Batch(DELIVERY.placement.lane, (DELIVERY,)), {DELIVERY.id: Delivered(OK)}, 0.1, None)
        settle_line = Verdict(State.DELIVERED, 0.0, 1, 0, end="delivered")
        log.sink.settled(DELIVERY, settle_line)
        log.sink.notice("loaded", secret_access_key="canary", password="canary", token="canary", token_file="/etc/token")
        assert "canary" not in log.text
        assert "/etc/token" in log.text


def test_trouble_tells_causes_and_places_but_no_values() -> None:
    log = Log()
    try:
        try:
            _fail("hidden value")
        except ValueError as cause:
            raise RuntimeError("outer\nsecond line") from cause
    except RuntimeError as error:
        log.sink.trouble("settling", error, queue_id=MESSAGE.id)
    line = log.lines[0]
    assert line["what"] == "settling"
    assert line["error"] == "RuntimeError: outer\nsecond line; caused by ValueError: inner"
    assert "test_observe_log.py" in line["where"]
    assert "hidden value" not in log.text


def _fail(value: str) -> None:
    raise ValueError("inner")


def test_lists_stay_lists() -> None:
    log, pretty = Log(), Log("console")
    for each in (log, pretty):
        each.sink.notice("ready", listeners=["127.0.0.1:25", "[::1]:25\n"])
    assert log.lines[0]["listeners"] == ["127.0.0.1:25", "[::1]:25\n"]
    assert "127.0.0.1:25, [::1]:25" in pretty.text
    assert pretty.text.count("\n") == 1


def test_facts_cannot_replace_the_keys_of_a_line() -> None:
    log = Log()
    log.sink.notice("started", level="none", time="never", event="other")
    assert (log.lines[0]["level"], log.lines[0]["event"], log.lines[0]["event_"]) == ("info", "notice", "other")


def test_libraries_are_heard_from_warning_on() -> None:
    log = Log(level="debug")
    logging.getLogger("botocore.auth").debug("AWS4-HMAC canary")
    logging.getLogger("asyncio").info("canary")
    logging.getLogger("aiosmtpd").warning("odd %s", "line\nbreak")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old use", stacklevel=1)
    assert "canary" not in log.text
    assert [(line["event"], line["source"]) for line in log.lines] == [("library", "aiosmtpd"), ("library", "py.warnings")]


def test_configuring_again_does_not_double_lines() -> None:
    Log()
    log = Log()
    logging.getLogger("asyncio").error("once")
    assert len(log.lines) == 1


def test_levels_hold() -> None:
    log = Log(level="warning")
    log.sink.accepted(MESSAGE, 0.1)
    log.sink.settled(DELIVERY, Verdict(State.DELIVERED, 0.0, 1, 0, end="delivered"))
    log.sink.notice("started")
    log.sink.reloaded(True, "fine")
    assert log.text == ""
    log.sink.reloaded(False, "config.yaml:3: no")
    assert (log.lines[0]["level"], log.lines[0]["ok"]) == ("error", False)


def test_times_are_rfc3339() -> None:
    log = Log()
    log.clock.now = 1_800_000_000.9996
    log.sink.notice("started")
    assert datetime.fromisoformat(log.lines[0]["time"]).timestamp() == pytest.approx(1_800_000_000.9996, abs=0.002)


def test_the_journal_is_told_how_bad_a_line_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b", buffering=0) as stream:
        found = os.fstat(stream.fileno())
        for journal in (f"{found.st_dev}:{found.st_ino}", f"{found.st_dev}:1"):  # the other one is not what we write to
            monkeypatch.setenv("JOURNAL_STREAM", journal)
            sink = LogSink(configure(format="auto", level="info", clock=FakeClock(), stream=stream), FakeClock())
            sink.notice("ready")
            sink.trouble("the disk is full", None)
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:4] for line in lines] == [b"<6>{", b"<3>{", b'{"ti', b'{"ti']
    assert [json.loads(line.lstrip(b"<>36"))["event"] for line in lines] == ["notice", "trouble"] * 2


def test_a_daemon_does_without_rich_which_is_there_for_who_wants_it() -> None:
    code = (
        "import sys\nimport sesrelay.app.daemon\nassert 'rich' not in sys.modules\n"
        "from rich.progress import Progress\nimport structlog.dev\nassert structlog.dev.rich is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
