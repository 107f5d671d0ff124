"""How many attempts at once a next hop gets."""

from __future__ import annotations

import pytest

from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.concurrency import FIRST, next_window, troubled

LATER, NEVER = Reply(451, "4.3.0", "Later"), Reply(550, "5.1.1", "Nobody")


def test_it_grows_to_the_limit_and_halves_at_trouble() -> None:
    window, seen = FIRST, []
    for _ in range(20):
        window = next_window(window, taken=True, trouble=False, limit=10)
        seen.append(window)
    assert seen[:6] == [6, 7, 8, 9, 10, 10]
    assert seen[-1] == 10
    for expected in (5, 2, 1, 1):
        window = next_window(window, taken=False, trouble=True, limit=10)
        assert window == expected
    assert next_window(window, taken=True, trouble=False, limit=10) == 2


def test_what_says_nothing_changes_nothing() -> None:
    assert next_window(7, taken=False, trouble=False, limit=10) == 7


def test_trouble_counts_also_where_somebody_was_served() -> None:
    assert next_window(8, taken=True, trouble=True, limit=10) == 4


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Delivered(Reply(250, "2.0.0", "Ok")), False),
        (Failed(NEVER), False),
        (Held(LATER, "hold"), False),
        (Deferred(LATER, Scope.RECIPIENT), False),
        (Deferred(LATER, Scope.MESSAGE), False),
        (Deferred(LATER, Scope.SENDER_DOMAIN), False),
        (Deferred(LATER, Scope.MESSAGE, ambiguous=True), True),
        (Deferred(LATER, Scope.NEXTHOP), True),
        (Deferred(LATER, Scope.RECIPIENT_DOMAIN), True),
        (Deferred(LATER, Scope.TRANSPORT), True),
    ],
)
def test_what_trouble_is(outcome: Outcome, expected: bool) -> None:
    assert troubled([Delivered(Reply(250, "", "Ok")), outcome]) is expected
