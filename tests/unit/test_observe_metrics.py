"""Metrics: the names, labels and values of the public contract."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import peers
from fakes import FakeClock
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.observe.metrics import MetricsSink
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import End, Verdict
from sesrelay.seams import Pause, Stats

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"
NOW = 1_800_000_000.0
OK = Reply(250, "2.0.0", "Ok")
RECIPIENT = Recipient("reader@example.org")
MESSAGE = Message("0h2k3j4l5m6n7", Envelope("blog@example.com", (RECIPIENT,)), Origin("127.0.0.1:25", "127.0.0.1"), 4096, NOW - 9)
LANE = LaneKey("ses-main", "us-east-1")
DELIVERY = Delivery(DeliveryId(MESSAGE.id, 0), MESSAGE, RECIPIENT, Placement("example", LANE))

# Name as in the contract, type, labels.
CONTRACT = {
    "messages_accepted_total": ("counter", {"listener"}),
    "messages_refused_total": ("counter", {"reason"}),
    "accept_seconds": ("histogram", set()),
    "smtp_connections": ("gauge", {"listener"}),
    "queue_deliveries": ("gauge", {"state", "transport"}),
    "queue_bytes": ("gauge", set()),
    "queue_oldest_seconds": ("gauge", {"transport"}),
    "queue_wait_seconds": ("histogram", {"transport"}),
    "attempts_total": ("counter", {"transport", "outcome"}),
    "attempt_seconds": ("histogram", {"transport"}),
    "deliveries_total": ("counter", {"route", "transport", "outcome"}),
    "transport_paused": ("gauge", {"transport", "reason"}),
    "ses_send_rate_limit": ("gauge", {"transport"}),
    "ses_quota_24h": ("gauge", {"transport"}),
    "ses_sent_24h": ("gauge", {"transport"}),
    "ses_throttled_total": ("counter", {"transport"}),
    "ses_bounces_24h": ("gauge", {"transport"}),
    "ses_complaints_24h": ("gauge", {"transport"}),
    "ses_rejects_24h": ("gauge", {"transport"}),
    "ses_attempts_24h": ("gauge", {"transport"}),
    "ses_quota_seconds_left": ("gauge", {"transport"}),
    "ses_reserve_in_force": ("gauge", {"transport"}),
    "ses_sandbox": ("gauge", {"transport"}),
    "ses_recipients_total": ("counter", {"transport"}),
    "ses_bytes_total": ("counter", {"transport"}),
    "ses_price_estimate_total": ("counter", {"transport"}),
    "config_reload_success": ("gauge", set()),
    "config_reload_timestamp_seconds": ("gauge", set()),
    "build_info": ("gauge", {"version", "python"}),
}


@pytest.fixture
def sink() -> MetricsSink:
    return MetricsSink(FakeClock(NOW))


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name.removeprefix("sesrelay_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(sink: MetricsSink, name: str, stats: Stats | None = None, **labels: str) -> float | None:
    return samples(sink.render(stats or Stats(), NOW)).get((name, frozenset(labels.items())))


STANDING = AccountStanding(
    "us-east-1", "AKIAX", None, 14.0, 50_000.0, 120.0, True, True, 3_600.0, attempts_24h=1_000, bounces_24h=60, complaints_24h=2,
    rejects_24h=1,
)  # fmt: skip


def live(sink: MetricsSink) -> None:
    """Let every metric have a value."""
    sink.expect(["127.0.0.1:25"], ["ses-main"], {"example": ["ses-main"]}, ["ses-main"])
    sink.connected("127.0.0.1:25")
    sink.accepted(MESSAGE, 0.002)
    sink.refused(MESSAGE.origin, OK, "policy")
    throttled = Deferred(OK, Scope.NEXTHOP, PauseReason.THROTTLED)
    sink.attempted(Batch(LANE, (DELIVERY,)), {DELIVERY.id: throttled}, 0.2, 0.1)
    sink.settled(DELIVERY, Verdict(State.DELIVERED, NOW, 1, 0, end="delivered"))
    sink.paused(Pause("ses-main", "us-east-1", PauseReason.QUOTA, NOW, NOW + 60))
    sink.quota("ses-main", 14.0, 50_000.0, 120.0)
    sink.account("ses-main", STANDING)


STATS = Stats(3, 12_288, NOW - 60, {("ses-main", State.QUEUED): 2, ("park", State.HELD): 1}, {"ses-main": NOW - 60})


def test_names_types_and_labels_are_the_contracts(sink: MetricsSink) -> None:
    live(sink)
    families = {family.name: family for family in text_string_to_metric_families(sink.render(STATS, NOW).decode())}
    for name, (kind, labels) in CONTRACT.items():
        family = families[f"sesrelay_{name.removesuffix('_total')}"]
        assert family.type == kind, name
        assert all(set(sample.labels) - {"le"} == labels for sample in family.samples), name
        if kind == "counter":
            assert {sample.name for sample in family.samples} == {f"sesrelay_{name}"}


def test_promtool_has_no_complaint(sink: MetricsSink) -> None:
    promtool = peers.require("promtool")
    live(sink)
    done = subprocess.run(
        promtool.command("check", "metrics"), check=False, capture_output=True, env=promtool.env, input=sink.render(STATS, NOW)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_metric_is_documented(sink: MetricsSink) -> None:
    live(sink)
    told = {name.partition("{")[0] for name in re.findall(r"^\| `(sesrelay_[^`]+)`", MONITORING.read_text(), re.M)}
    rendered = {line.split()[2] for line in sink.render(STATS, NOW).decode().splitlines() if line.startswith("# TYPE")}
    assert told == rendered


def test_promtool_takes_the_alerts_of_the_documentation(tmp_path: Path) -> None:
    promtool = peers.require("promtool")
    rules = next(block for block in re.findall(r"```yaml\n(.*?)```", MONITORING.read_text(), re.S) if block.startswith("groups"))
    (tmp_path / "rules.yaml").write_text(rules)
    done = subprocess.run(
        promtool.command("check", "rules", tmp_path / "rules.yaml"), check=False, capture_output=True, env=promtool.env
    )
    assert done.returncode == 0, done.stderr


def test_no_label_holds_an_address(sink: MetricsSink) -> None:
    live(sink)
    assert not re.search(rb"@|reader|blog", sink.render(STATS, NOW))


def test_what_is_configured_stands_at_zero(sink: MetricsSink) -> None:
    sink.expect(["127.0.0.1:25"], ["ses-main", "direct"], {"example": ["ses-main"]}, ["ses-main"])
    assert value(sink, "messages_accepted_total", listener="127.0.0.1:25") == 0
    assert value(sink, "smtp_connections", listener="127.0.0.1:25") == 0
    assert value(sink, "attempts_total", transport="direct", outcome="ambiguous") == 0
    assert value(sink, "deliveries_total", route="example", transport="ses-main", outcome="suppressed") == 0
    assert value(sink, "queue_deliveries", state="held", transport="direct") == 0
    assert value(sink, "queue_oldest_seconds", transport="direct") == 0
    assert value(sink, "ses_throttled_total", transport="ses-main") == 0
    assert value(sink, "ses_throttled_total", transport="direct") is None


def test_the_queue_is_as_the_store_says_and_old_series_go(sink: MetricsSink) -> None:
    sink.expect([], ["ses-main"], {})
    assert value(sink, "queue_deliveries", STATS, state="held", transport="park") == 1
    assert value(sink, "queue_bytes", STATS) == 12_288
    assert value(sink, "queue_oldest_seconds", STATS, transport="ses-main") == 60
    assert value(sink, "queue_deliveries", state="held", transport="park") is None
    assert value(sink, "queue_deliveries", state="queued", transport="ses-main") == 0


def test_without_the_store_the_rest_is_still_told(sink: MetricsSink) -> None:
    live(sink)
    told = samples(sink.render(None, NOW))
    assert told["messages_accepted_total", frozenset({("listener", "127.0.0.1:25")})] == 1
    assert not any(name == "queue_deliveries" for name, _ in told)


def test_attempts_are_counted_by_delivery(sink: MetricsSink) -> None:
    outcomes = dict(
        zip(
            (DeliveryId(MESSAGE.id, n) for n in range(6)),
            (Delivered(OK), Delivered(OK), Failed(OK), Deferred(OK), Deferred(OK, ambiguous=True), Held(OK, "in_doubt")),
            strict=True,
        )
    )
    sink.attempted(Batch(LANE, (DELIVERY,)), outcomes, 0.3, 7.0)
    sink.attempted(Batch(LANE, (DELIVERY,)), {DELIVERY.id: Delivered(OK)}, 0.3, None)
    for outcome, count in (("delivered", 3), ("failed", 1), ("deferred", 1), ("ambiguous", 1)):
        assert value(sink, "attempts_total", transport="ses-main", outcome=outcome) == count
    told = [dict(labels)["outcome"] for name, labels in samples(sink.render(None, NOW)) if name == "attempts_total"]
    assert set(told) == {"delivered", "deferred", "failed", "ambiguous"}
    assert value(sink, "attempt_seconds_count", transport="ses-main") == 2
    assert value(sink, "queue_wait_seconds_count", transport="ses-main") == 1
    assert value(sink, "queue_wait_seconds_sum", transport="ses-main") == 7.0


def test_a_throttled_batch_is_one_throttled_call(sink: MetricsSink) -> None:
    throttled = Deferred(OK, Scope.NEXTHOP, PauseReason.THROTTLED)
    sink.attempted(Batch(LANE, (DELIVERY,)), {DeliveryId(MESSAGE.id, n): throttled for n in range(50)}, 0.1, None)
    assert value(sink, "ses_throttled_total", transport="ses-main") == 1


@pytest.mark.parametrize("end", ["delivered", "failed", "expired", "suppressed"])
def test_deliveries_are_counted_where_they_end(sink: MetricsSink, end: End) -> None:
    sink.settled(DELIVERY, Verdict(State.QUEUED, NOW, 1, 0))
    state = State.DELIVERED if end == "delivered" else State.FAILED
    sink.settled(DELIVERY, Verdict(state, NOW, 1, 0, end=end))
    assert value(sink, "deliveries_total", route="example", transport="ses-main", outcome=end) == 1
    counted = sink.counters()
    assert (counted["deferred"], counted["delivered"], counted["failed"]) == (1, int(end == "delivered"), int(end != "delivered"))


def test_paused_is_one_or_absent(sink: MetricsSink) -> None:
    def paused(reason: str) -> float | None:
        return value(sink, "transport_paused", transport="ses-main", reason=reason)

    first = Pause("ses-main", "us-east-1", PauseReason.QUOTA, NOW, NOW + 60)
    other = Pause("ses-main", "us-east-1", PauseReason.QUOTA, NOW, NOW + 60, domain="example.com")
    sink.paused(first)
    sink.paused(other)
    assert paused("quota") == 1
    sink.resumed(first)
    assert paused("quota") == 1
    sink.paused(Pause("ses-main", "us-east-1", PauseReason.CREDENTIALS, NOW, NOW + 60, domain="example.com"))
    assert (paused("quota"), paused("credentials")) == (None, 1)
    sink.resumed(other)
    assert (paused("quota"), paused("credentials")) == (None, None)


def test_pauses_that_stand_overrule_what_events_told(sink: MetricsSink) -> None:
    live(sink)
    assert not any(name == "transport_paused" for name, _ in samples(sink.render(STATS, NOW, pauses=())))


def test_a_failed_reload_keeps_the_time_of_the_good_one() -> None:
    clock = FakeClock(NOW)
    sink = MetricsSink(clock)
    clock.advance(100)
    sink.reloaded(False, "config.yaml:1: no")
    assert (value(sink, "config_reload_success"), value(sink, "config_reload_timestamp_seconds")) == (0, NOW)
    sink.reloaded(True, "")
    assert (value(sink, "config_reload_success"), value(sink, "config_reload_timestamp_seconds")) == (1, NOW + 100)


def test_connections_go_up_and_down(sink: MetricsSink) -> None:
    for _ in range(3):
        sink.connected("[::1]:25")
    sink.disconnected("[::1]:25")
    assert value(sink, "smtp_connections", listener="[::1]:25") == 2


def test_two_sinks_share_nothing() -> None:
    one, two = MetricsSink(FakeClock(NOW)), MetricsSink(FakeClock(NOW))
    one.accepted(MESSAGE, 0.1)
    one.trouble("x")
    assert value(one, "messages_accepted_total", listener="127.0.0.1:25") == 1
    assert value(two, "messages_accepted_total", listener="127.0.0.1:25") is None
    assert (value(one, "troubles_total"), value(two, "troubles_total")) == (1, 0)


def test_the_account_is_shown_and_what_it_has_not_told_is_not_a_number(sink: MetricsSink) -> None:
    sink.account("ses-main", STANDING)
    assert value(sink, "ses_bounces_24h", transport="ses-main") == 60
    assert value(sink, "ses_sandbox", transport="ses-main") == 1
    assert value(sink, "ses_reserve_in_force", transport="ses-main") == 1
    assert value(sink, "ses_quota_seconds_left", transport="ses-main") == 3_600
    assert sink.accounts() == {"ses-main": STANDING}
    sink.account("ses-main", AccountStanding("us-east-1", "AKIAX"))
    assert str(value(sink, "ses_bounces_24h", transport="ses-main")) == "nan"
    assert value(sink, "ses_quota_seconds_left", transport="ses-main") == float("inf")
    sink.expect([], ["other"], {}, ["other"])
    assert sink.accounts() == {}


def test_the_account_of_a_transport_that_a_reload_took_away_is_shown_no_longer(sink: MetricsSink) -> None:
    live(sink)
    sink.expect([], ["other"], {}, ["other"])
    sink.quota("other", 1.0, 200.0, 0.0)
    text = sink.render(Stats(), NOW).decode()
    of_an_account = {line for line in text.splitlines() if line.startswith("sesrelay_ses_") and "_total{" not in line}
    assert {line.partition("{")[2].partition("}")[0] for line in of_an_account if "_created" not in line} == {'transport="other"'}


def test_what_ses_took_is_counted_by_recipient_and_priced_by_the_tariff(sink: MetricsSink) -> None:
    large = replace(MESSAGE, size=2_000_000_000)
    delivery = replace(DELIVERY, message=large)
    also = replace(delivery, id=DeliveryId(MESSAGE.id, 1))
    refused = replace(delivery, id=DeliveryId(MESSAGE.id, 2))
    batch = Batch(LANE, (delivery, also, refused))
    outcomes = {delivery.id: Delivered(OK), also.id: Delivered(OK), refused.id: Deferred(OK)}
    sink.attempted(batch, outcomes, 0.2, None)  # by a transport of which nothing is known
    assert value(sink, "ses_recipients_total", transport=LANE.transport) is None
    sink.expect([], ["ses-main"], {}, ["ses-main"], {"ses-main": (0.10, 0.12)})
    sink.attempted(batch, outcomes, 0.2, None)
    assert value(sink, "ses_recipients_total", transport="ses-main") == 2
    assert value(sink, "ses_bytes_total", transport="ses-main") == 4_000_000_000
    assert value(sink, "ses_price_estimate_total", transport="ses-main") == pytest.approx(2 * 0.0001 + 4 * 0.12)
