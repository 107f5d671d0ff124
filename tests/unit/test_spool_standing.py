"""Wishes to hold what comes: one form for each, and what they mean for a delivery."""

from __future__ import annotations

import pytest

from sesrelay.mail.delivery import State
from sesrelay.seams import Filter
from sesrelay.spool.standing import StandingHolds, as_text
from spool_world import NOW, submission


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Filter(sender="*@example.com"), Filter(sender="@EXAMPLE.com"), True),
        (Filter(sender="*@bücher.example"), Filter(sender="*@xn--bcher-kva.example"), True),
        (Filter(sender="A@Example.com"), Filter(sender="a@example.com"), True),
        (Filter(sender="<>"), Filter(sender=""), True),
        (Filter(sender="a@example.com"), Filter(recipient="a@example.com"), False),
        (Filter(sender="a@example.com"), Filter(sender="a@example.com", transport="ses"), False),
    ],
)
def test_the_same_wish_stands_once(one: Filter, other: Filter, same: bool) -> None:
    holds = StandingHolds()
    holds.add(one, NOW)
    assert holds.has(other) is same
    holds.add(other, NOW + 1)
    assert len(holds.all()) == (1 if same else 2)
    again = StandingHolds()
    again.load([(as_text(hold.filter), hold.since) for hold in holds.all()])
    assert again.all() == holds.all()
    holds.remove(other)
    assert len(holds.all()) == (0 if same else 1)


@pytest.mark.parametrize(
    ("wish", "held"),
    [
        (Filter(sender="*@example.com"), True),
        (Filter(sender="*@sub.example.com"), False),
        (Filter(sender="alice@EXAMPLE.com"), True),
        (Filter(recipient="*@example.org"), True),
        (Filter(recipient="*@example.org", sender="*@example.net"), False),
        (Filter(transport="ses"), True),
        (Filter(transport="direct"), False),
        (Filter(sender="<>"), False),
    ],
)
def test_what_is_held_as_it_comes(wish: Filter, held: bool) -> None:
    holds = StandingHolds()
    (delivery,) = submission(1).deliveries
    assert holds.hold(delivery) is None
    holds.add(wish, NOW)
    assert holds.hold(delivery) == ("operator" if held else None)
    report = submission(2)
    applied = holds.applied(report)
    assert (applied.deliveries[0].state is State.HELD) is held
    assert (applied is report) is not held
