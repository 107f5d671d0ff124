"""The memory that mail in and mail out share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sesrelay.policy.budget import ByteBudget


def test_neither_direction_takes_the_floor_of_the_other() -> None:
    budget = ByteBudget(100, incoming=20, outgoing=40)
    assert not budget.incoming.take(61)
    assert budget.incoming.take(60)
    assert budget.outgoing.take(40)
    assert not budget.outgoing.take(1)
    budget.incoming.give(60)
    assert budget.outgoing.take(40)
    assert not budget.outgoing.take(1)
    assert budget.incoming.take(20)


def test_attempts_wait_in_order_and_one_goes_whatever_its_size() -> None:
    budget, went = ByteBudget(100, incoming=10, outgoing=10), list[str]()

    def ask(name: str, octets: int, wanted: bool = True) -> None:
        budget.take_outgoing(octets, lambda: went.append(name) is None and wanted)

    ask("huge", 500)
    ask("a", 50)
    ask("b", 1)
    assert went == ["huge"]
    budget.outgoing.give(500)
    assert went == ["huge", "a", "b"]
    ask("gone", 49, wanted=False)
    budget.outgoing.give(50)
    assert went[3:] == ["gone"]
    assert budget.outgoing.used == 1


def test_mail_that_came_in_makes_room_for_attempts() -> None:
    budget, went = ByteBudget(100), list[int]()
    assert budget.outgoing.take(10)
    assert budget.incoming.take(80)
    budget.take_outgoing(30, lambda: went.append(1) is None)
    assert went == []
    budget.incoming.give(80)
    assert went == [1]


def test_a_larger_limit_lets_those_through_who_wait() -> None:
    budget, went = ByteBudget(100), list[int]()
    assert budget.outgoing.take(90)
    budget.take_outgoing(30, lambda: went.append(1) is None)
    budget.resize(200, 10, 10)
    assert went == [1]
    budget.resize(50, 10, 10)  # what is taken stays taken
    assert budget.outgoing.used == 120
    assert not budget.incoming.take(1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=30))
def test_never_more_than_the_limit(asks: list[tuple[bool, int]]) -> None:
    budget = ByteBudget(100, incoming=20, outgoing=30)
    for inward, octets in asks:
        (budget.incoming if inward else budget.outgoing).take(octets)
        assert budget.incoming.used + budget.outgoing.used <= 100
        assert budget.incoming.room + budget.incoming.used + max(budget.outgoing.used, 30) == 100
