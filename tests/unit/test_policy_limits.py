"""What caps leave of what was sent, and what a header makes of a priority, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail import headers
from sesrelay.mail.delivery import Priority
from sesrelay.mail.reply import Reply
from sesrelay.policy import scheduling
from sesrelay.policy.limits import DAY, HOUR, SLOT, RouteLimits, Sent, WarmUp, allowance
from sesrelay.policy.precedence import priority_by_header

NOW = 1_800_000_000.0 // DAY * DAY + 10 * HOUR + 7.0  # ten in the morning, UTC
SLOTS_A_DAY = DAY / SLOT


@pytest.mark.parametrize(
    ("limits", "sent", "wanted"),
    [
        (RouteLimits(rate=1.0, concurrency=1), {0: 99}, None),
        (RouteLimits(hourly_cap=10), {}, (10, "hourly_cap", None)),
        (RouteLimits(hourly_cap=10), {0: 4, -12: 2, -13: 99}, (4, "hourly_cap", None)),
        (RouteLimits(hourly_cap=10), {0: 4, -12: 6}, (0, "hourly_cap", HOUR - 11 * SLOT)),
        (RouteLimits(hourly_cap=10), {0: 10, -12: 6}, (0, "hourly_cap", HOUR + SLOT)),
        (RouteLimits(hourly_cap=10), {0: 9, -5: 5, -12: 6}, (0, "hourly_cap", HOUR - 4 * SLOT)),
        (RouteLimits(daily_cap=10), {-288: 10}, (0, "daily_cap", DAY - 287 * SLOT)),
        (RouteLimits(daily_cap=10), {-289: 10}, (10, "daily_cap", None)),
        (RouteLimits(daily_cap=10, hourly_cap=3), {0: 3, -100: 6}, (0, "hourly_cap", HOUR + SLOT)),
        (RouteLimits(daily_cap=9, hourly_cap=3), {0: 3, -100: 6}, (0, "daily_cap", DAY - 99 * SLOT)),
        (RouteLimits(daily_cap=9, hourly_cap=8), {-100: 5}, (4, "daily_cap", None)),
    ],
)
def test_what_caps_leave(limits: RouteLimits, sent: dict[int, int], wanted: tuple[int, str, float | None] | None) -> None:
    now_slot = int(NOW // SLOT)
    found = allowance(limits, Sent({now_slot + slot: n for slot, n in sent.items()}), NOW)
    if wanted is None:
        assert found is None
        return
    left, cap, wait = wanted
    assert found is not None
    assert (found.left, found.cap) == (left, cap)
    if wait is not None:
        assert found.until == now_slot * SLOT + wait
        later = Sent({now_slot + slot: n for slot, n in sent.items()})
        for moment, opens in ((found.until - 1, False), (found.until, True)):
            again = allowance(limits, later, moment)
            assert again is not None
            assert (again.left > 0) is opens


@given(st.lists(st.tuples(st.floats(0.0, 900.0), st.integers(1, 5)), max_size=200))
def test_no_hour_has_more_than_its_cap(tries: list[tuple[float, int]]) -> None:
    limits, sent, now = RouteLimits(hourly_cap=10), Sent(), NOW
    went: list[tuple[float, int]] = []
    for pause, recipients in tries:
        now += pause
        found = allowance(limits, sent, now)
        assert found is not None
        if found.left >= recipients:
            sent.add(recipients, now)
            went.append((now, recipients))
            assert sum(n for moment, n in went if now - moment < HOUR) <= 10
        else:
            assert sum(n for moment, n in went if now - moment < HOUR + SLOT) > 10 - recipients, "nor does it wait in vain"


@pytest.mark.parametrize(("day", "cap"), [(-3, 50), (0, 50), (0.99, 50), (1, 100), (2.5, 1000), (3, None), (99, None)])
def test_a_warm_up_goes_by_its_plan(day: float, cap: int | None) -> None:
    start = NOW // DAY * DAY
    limits = RouteLimits(warm_up=WarmUp(start, (50, 100, 1000)))
    now = start + day * DAY
    found = allowance(limits, Sent({int(now // DAY * SLOTS_A_DAY): 7, int(now // DAY * SLOTS_A_DAY) - 1: 9999}), now)
    assert (None if found is None else found.left) == (None if cap is None else cap - 7)


def test_a_warm_up_that_is_used_up_goes_on_at_midnight() -> None:
    start = NOW // DAY * DAY
    sent = Sent()
    sent.add(50, NOW)
    found = allowance(RouteLimits(warm_up=WarmUp(start, (50, 100))), sent, NOW)
    assert found is not None
    assert (found.left, found.cap, found.until) == (0, "warm_up", start + DAY)
    again = allowance(RouteLimits(warm_up=WarmUp(start, (50, 100))), sent, start + DAY)
    assert again is not None
    assert again.left == 100


def test_counts_are_forgotten_when_no_cap_asks_for_them() -> None:
    sent = Sent()
    for hour in range(60):
        sent.add(1, NOW + hour * HOUR)
    sent.add(-5, NOW + 59 * HOUR)
    assert len(sent.slots) == 25
    assert min(sent.slots.values()) == 0


@pytest.mark.parametrize(
    ("header", "trusted", "wanted"),
    [
        ("Subject: reset", None, None),
        ("Precedence: bulk", None, Priority.LOW),
        ("precedence:  LIST", None, Priority.LOW),
        ("Precedence: junk", None, Priority.LOW),
        ("Precedence: first-class", None, None),
        ("Precedence: special-delivery", None, None),
        ("List-Id: <news.example.com>", None, Priority.LOW),
        ("List-Unsubscribe: <https://example.com/u>", None, Priority.LOW),
        ("Auto-Submitted: auto-replied (vacation)", None, Priority.LOW),
        ("Auto-Submitted: auto-replied", None, Priority.LOW),
        ("Auto-Submitted: auto-replied; owner-token=x", None, Priority.LOW),
        ("Auto-Submitted: auto-generated", None, None),
        ("Auto-Submitted: no", None, None),
        ("X-Priority: 1", None, None),
        ("X-Priority: 1 (Highest)", "X-Priority", Priority.HIGH),
        ("X-Priority: 3", "X-Priority", Priority.NORMAL),
        ("x-priority: 5(Lowest)", "X-Priority", Priority.LOW),
        ("X-Priority: soon\r\nPrecedence: bulk", "X-Priority", Priority.LOW),
        ("X-Priority: \r\nPrecedence: bulk", "X-Priority", Priority.LOW),
        ("Importance: High\r\nList-Id: <x>", "Importance", Priority.HIGH),
        ("Priority: non-urgent", "Priority", Priority.LOW),
    ],
)
def test_what_a_header_makes_of_the_priority(header: str, trusted: str | None, wanted: Priority | None) -> None:
    head = f"From: a@example.com\r\n{header}\r\nTo: b@example.org\r\n".encode()
    value = headers.value_of(head, trusted) if trusted else None
    assert priority_by_header(headers.facts(head).marks, value) == wanted


@pytest.mark.parametrize(
    ("hold_for", "hold_until", "wanted"),
    [
        (None, None, None),
        (0, None, None),
        (60, None, NOW + 60),
        (scheduling.HOLD_MAX, None, NOW + scheduling.HOLD_MAX),
        (scheduling.HOLD_MAX + 1, None, 501),
        (None, NOW - 1, None),
        (None, NOW + 1, NOW + 1),
        (None, scheduling.latest(NOW), scheduling.latest(NOW)),
        (None, scheduling.latest(NOW) + 1, 501),
    ],
)
def test_when_mail_is_released(hold_for: float | None, hold_until: float | None, wanted: float | None) -> None:
    found = scheduling.release(hold_for, hold_until, NOW)
    assert (found.code if isinstance(found, Reply) else found) == wanted


def test_what_is_offered_can_be_had_all_day() -> None:
    assert scheduling.offered(NOW) == scheduling.offered(NOW // DAY * DAY)
    assert scheduling.latest(NOW) <= NOW + scheduling.HOLD_MAX
