"""What pages are made of: ages, sizes, states and texts."""

from __future__ import annotations

import pytest

from browser.paper_desk import CONTROLS, LONG, REVERSED, delivery, message
from sesrelay.web import view

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (REVERSED, "invoice \ufffdgpj.exe\ufffd paid"),
        (CONTROLS, "bell\ufffd null\ufffd escape\ufffd[31m line\ufffdbreak"),
        ("\ud800", "\ufffd"),
        ("zero\u200bwidth", "zero\ufffdwidth"),
        (
            "family \U0001f468\u200d\U0001f469\u200d\U0001f466 and שלום",
            "family \U0001f468\u200d\U0001f469\u200d\U0001f466 and שלום",
        ),
        (None, ""),
        (7, "7"),
    ],
)
def test_plain_leaves_nothing_unseen(given: object, shown: str) -> None:
    assert view.plain(given) == shown


def test_plain_has_an_end() -> None:
    assert len(view.plain(LONG)) == view.TEXT_MAX
    assert view.plain(LONG).endswith("…")


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (-5, "now", "now"),
        (0.9, "now", "now"),
        (59, "59 s", "59 s"),
        (60, "1 min", "1 min"),
        (3661, "1 h", "1 h 1 min"),
        (7200, "2 h", "2 h"),
        (86400 * 3 + 3600 * 4, "3 d", "3 d 4 h"),
    ],
)
def test_ages(seconds: float, short: str, long: str) -> None:
    assert (view.age(seconds), view.uptime(seconds)) == (short, long)


@pytest.mark.parametrize(("octets", "shown"), [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (123_456_789, "118 MiB")])
def test_sizes(octets: int, shown: str) -> None:
    assert view.size(octets) == shown


def test_the_delivery_that_wants_the_eye_leads_the_row() -> None:
    paper = message(
        "0h2k3j4l5m6n7",
        "three of them",
        delivery(state="delivered", attempts=1, reply="250 2.0.0 Ok"),
        delivery(state="failed", attempts=1, reply="550 5.1.1 unknown"),
        delivery(state="queued", attempts=2),
    )
    row = view.row(paper, NOW)
    assert (row.state, row.tally, row.detail, row.more) == ("failed", "1 failed, 1 deferred, 1 delivered", "550 5.1.1 unknown", 1)


def test_the_remote_id_is_shown_once() -> None:
    row = view.row(message("x", "s", delivery(state="delivered", reply="250 2.0.0 Ok 0100-abc", remote_id="0100-abc")), NOW)
    assert (row.remote_id, row.detail) == ("0100-abc", "250 2.0.0 Ok")


def test_queued_with_attempts_is_deferred() -> None:
    assert view.state_of(delivery(attempts=1)) == "deferred"
    assert view.state_of(delivery(attempts=0)) == "queued"
    assert view.state_of(delivery(state="held", attempts=1)) == "held"


def test_a_message_without_deliveries_or_time_has_a_row() -> None:
    row = view.row({"id": "x", "accepted": "not a time", "deliveries": []}, NOW)
    assert (row.state, row.accepted, row.sender) == ("queued", None, "<>")


def test_moments_name_the_day_where_it_is_not_today() -> None:
    today, before = view.moment("2027-01-15T07:00:00.123Z", NOW), view.moment("2027-01-14T23:00:00Z", NOW)
    assert today is not None
    assert before is not None
    assert (today.day, today.clock, today.age) == ("", "07:00:00", "59 min")
    assert (before.day, before.clock) == ("2027-01-14", "23:00:00")


def test_bars_show_what_is_there_and_stay_inside() -> None:
    counts = {"a": {"queued": 100_000, "in_flight": 1, "held": 1}, "b": {"held": 1}}
    made = {lane.name: lane.segments for lane in view.lanes({"by_transport": counts, "paused": []})}
    for segments in made.values():
        assert all(x >= 0 and x + width <= 100.01 for _, x, width in segments)
    assert [width for _, _, width in made["b"]] == [0.0, 0.0, view.SLIVER]


def test_a_paused_transport_has_a_lane_though_nothing_waits() -> None:
    assert [(lane.name, lane.paused) for lane in view.lanes({"by_transport": {}, "paused": [{"transport": "ses"}]})] == [
        ("ses", True)
    ]


def test_what_somebody_has_to_mend_comes_first() -> None:
    paused = [
        {"transport": "direct", "reason": "unavailable", "since": "2027-01-01T00:00:00Z"},
        {"transport": "ses", "reason": "credentials", "since": "2027-01-15T00:00:00Z"},
    ]
    assert [pause["transport"] for pause in view.pauses({"paused": paused}, NOW)] == ["ses", "direct"]


def test_commands_in_a_remedy_are_marked() -> None:
    assert view.spans("run `a b`, then wait") == [(False, "run "), (True, "a b"), (False, ", then wait")]
    assert view.spans("an odd ` tick") == [(False, "an odd ` tick")]
