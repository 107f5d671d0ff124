"""Turns between priorities and sites, as tables."""

import itertools
from collections import Counter

import pytest

from sesrelay.mail.delivery import Priority
from sesrelay.policy.fairness import PASSED_OVER_MAX, Rounds, Turns

HIGH, NORMAL, LOW = Priority


@pytest.mark.parametrize("waiting", [[LOW], [NORMAL, LOW], [HIGH, LOW], [HIGH, NORMAL, LOW]])
def test_the_highest_goes_first_and_each_of_the_others_in_its_time(waiting: list[Priority]) -> None:
    turns = Turns()
    served = []
    for _ in range(10 * PASSED_OVER_MAX):
        first = turns.order(waiting)[0]
        served.append(first)
        turns.served(first, waiting)
    assert served[0] == min(waiting)
    for priority in waiting:
        gaps = [n for n, one in enumerate(served) if one == priority]
        assert max(b - a for a, b in itertools.pairwise(gaps)) <= PASSED_OVER_MAX + 2
    assert Counter(served)[min(waiting)] >= 0.85 * len(served) or len(waiting) == 1


def test_the_order_is_the_same_until_something_goes() -> None:
    turns = Turns()
    assert turns.order([LOW, HIGH]) == turns.order([HIGH, LOW]) == [HIGH, LOW]


def drawn(rounds: Rounds, sizes: dict[str, int], n: int, closed: frozenset[str] = frozenset()) -> list[str | None]:
    found: list[str | None] = []
    for _ in range(n):
        site = rounds.next(sizes.__getitem__, closed.__contains__)
        assert site == rounds.next(sizes.__getitem__, closed.__contains__), "the same until it is served"
        found.append(site)
        if site is not None:
            rounds.served(site, sizes[site])
    return found


@pytest.mark.parametrize(
    ("sizes", "closed", "wanted"),
    [
        ({"a": 1, "b": 1, "c": 1}, "", {"a": 20, "b": 20, "c": 20}),
        ({"a": 1, "b": 1, "c": 1}, "b", {"a": 30, "c": 30}),
        ({"a": 1, "b": 1}, "ab", {None: 60}),
        ({"a": 1}, "", {"a": 60}),
        ({"a": 5, "b": 1}, "", {"a": 10, "b": 50}),
        ({"a": 50, "b": 50, "c": 25}, "", {"a": 15, "b": 15, "c": 30}),
    ],
)
def test_sites_get_the_same_number_of_recipients(sizes: dict[str, int], closed: str, wanted: dict[str | None, int]) -> None:
    rounds = Rounds()
    for site in sizes:
        rounds.join(site)
    found = Counter(drawn(rounds, sizes, 60, frozenset(closed)))
    assert {site: abs(found[site] - n) <= 1 for site, n in wanted.items()} == dict.fromkeys(wanted, True), found


def test_a_site_that_comes_anew_has_saved_up_nothing() -> None:
    rounds = Rounds()
    rounds.join("a")
    rounds.join("b")
    sizes = {"a": 1, "b": 10}
    assert drawn(rounds, sizes, 5) == ["a"] * 5
    rounds.leave("b")
    rounds.join("b")
    assert drawn(rounds, sizes, 9) == ["a"] * 9
    assert set(drawn(rounds, sizes, 2)) == {"a", "b"}
