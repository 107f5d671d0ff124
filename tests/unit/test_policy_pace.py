"""The pace on a fake clock, against the bucket of the stand-in: how much of the rate is used, and how often it is refused."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from fakes import FakeClock
from ses_world import Figures
from sesrelay.mail.delivery import Priority
from sesrelay.policy.pace import Governor
from sesrelay.policy.quota import DAY, Window
from sesrelay.testing.ses_rules import Bucket
from sesrelay.transport.ses.ledger import Ledger

BOTH_WAYS = 0.03  # seconds of a call


@dataclass
class Run:
    """What came of sending as fast as the governor lets us. Units: `used` a part of what the rate allows."""

    used: float
    refused: float
    calls: int


def run(
    governor: Governor, bucket: Bucket, recipients: int, seconds: float, *, jitter: float = 0.0, others: float = 0.0, seed: int = 1
) -> Run:
    """Send messages to `recipients` as the governor allows; `others` of the rate are used by another host, evenly.

    Calls take BOTH_WAYS and up to `jitter` more on their way there; timers are up to 2 ms late.
    """
    chance = random.Random(seed)
    now, taken, refused, calls = 0.0, 0, 0, 0
    clock = [0.0]
    bucket.now = lambda: clock[0]
    under_way: list[tuple[float, int, str]] = []
    number, next_other = 0, 0.0
    while now < seconds:
        wait = governor.take(recipients, now)
        if wait == 0.0:
            number += 1
            heapq.heappush(under_way, (now + BOTH_WAYS / 2 + chance.random() * jitter, number, "arrives"))
            continue
        then = now + wait + chance.random() * 0.002
        while under_way and under_way[0][0] <= then:
            clock[0], _, what = heapq.heappop(under_way)
            if what != "arrives":
                (governor.throttled if what == "refused" else governor.taken)(clock[0])
                then = clock[0]
                continue
            arrived = clock[0]
            while others and next_other <= arrived:
                clock[0] = next_other
                bucket.take(1)
                next_other += 1 / (bucket.rate * others)
            clock[0] = arrived
            calls += 1
            number += 1
            if bucket.take(recipients):
                taken += recipients
                heapq.heappush(under_way, (clock[0] + BOTH_WAYS / 2, number, "taken"))
            else:
                refused += 1
                heapq.heappush(under_way, (clock[0] + BOTH_WAYS / 2, number, "refused"))
        now = then
    return Run(taken / (bucket.rate * seconds), refused / max(calls, 1), calls)


Way = tuple[float | str, float]


def run_together(
    ledger: Ledger,
    clock: FakeClock,
    ways: Sequence[Way],
    bucket: Bucket,
    seconds: float,
    *,
    recipients: int = 1,
    joins: float = 0.0,
) -> tuple[list[float], float]:
    """Send by all `ways` at once, as fast as each may; return how many a second each had taken, and the part that was refused.

    Those behind the first join `joins` seconds later. Which of them wakes first is chance.
    """
    chance = random.Random(2)
    bucket.now = clock.monotonic
    start, number, calls, refused = clock.monotonic(), 0, 0, 0
    taken = [0.0] * len(ways)
    due = [(start + (joins if way else 0.0), way, way, "asks") for way in range(len(ways))]
    number = len(due)
    heapq.heapify(due)
    while (at := due[0][0]) < start + seconds:
        _, _, way, what = heapq.heappop(due)
        clock.advance(max(at - clock.monotonic(), 0.0))
        number += 1
        if what == "asks":
            wait = ledger.governor(*ways[way]).take(recipients, clock.monotonic())
            if wait == 0.0:
                heapq.heappush(due, (at + BOTH_WAYS / 2 + chance.random() * 0.005, number, way, "arrives"))
            number += 1
            heapq.heappush(due, (at + wait + chance.random() * 0.002, number, way, "asks"))
        elif what == "arrives":
            calls += 1
            if bucket.take(recipients):
                taken[way] += recipients
                heapq.heappush(due, (at + BOTH_WAYS / 2, number, way, "taken"))
            else:
                refused += 1
                heapq.heappush(due, (at + BOTH_WAYS / 2, number, way, "refused"))
        elif what == "taken":
            ledger.spent(recipients)
        else:
            ledger.throttled()
    return [one / seconds for one in taken], refused / max(calls, 1)


def told(rate: float) -> tuple[Ledger, FakeClock]:
    clock = FakeClock()
    ledger = Ledger(clock)
    ledger.told(Figures(rate, -1.0), 0.0)
    return ledger, clock


@pytest.mark.parametrize("recipients", [1, 30])
@pytest.mark.parametrize("rate", [14.0, 200.0])
@pytest.mark.parametrize(
    ("ways", "caps"),
    [
        ([("auto", 1.0), ("auto", 0.5)], [1.0, 0.5]),
        ([("auto", 1.0), (5.0, 1.0)], [1.0, 5.0]),
        ([(5.0, 1.0), ("auto", 0.25)], [5.0, 0.25]),
        ([("auto", 0.8), ("auto", 0.6), (8.0, 1.0)], [0.8, 0.6, 8.0]),
        ([("auto", 0.5)], [0.5]),
    ],
)
def test_all_ways_together_keep_to_the_accounts_rate_and_each_to_its_own(
    rate: float, ways: list[Way], caps: list[float], recipients: int
) -> None:
    ledger, clock = told(rate)
    most = [cap * rate if isinstance(way[0], str) else cap for way, cap in zip(ways, caps, strict=True)]
    seconds = max(4_000 * recipients / rate, 300.0)
    taken, refused = run_together(ledger, clock, ways, Bucket(rate), seconds, recipients=recipients)
    for had, own in zip(taken, most, strict=True):
        assert had <= own + (recipients + own) / seconds  # what is saved up at the start
    assert sum(taken) >= 0.98 * min(sum(most), rate)
    assert refused < 0.005
    if len(ways) == 2 and sum(most) > rate:
        assert taken[1] >= 0.5 * most[1], "nobody is starved"


def test_in_the_sandbox_two_ways_share_one_a_second() -> None:
    ledger, clock = told(1.0)
    taken, refused = run_together(ledger, clock, [("auto", 1.0), ("auto", 0.5)], Bucket(1.0), 2_000.0)
    assert 0.95 <= sum(taken) <= 1.001
    assert 0.2 <= taken[1] <= 0.501
    assert refused < 0.005


@pytest.mark.parametrize("ways", [[("auto", 0.9), ("auto", 1.0)], [(14.0, 1.0), ("auto", 0.5)], [("auto", 1.0), (14.0, 1.0)]])
@pytest.mark.parametrize("recipients", [1, 30])
def test_who_joins_finds_no_more_than_is_left(ways: list[Way], recipients: int) -> None:
    ledger, clock = told(14.0)
    _, refused = run_together(ledger, clock, ways, Bucket(14.0), 60.0, recipients=recipients, joins=30.0)
    assert refused == 0.0


def test_a_refusal_slows_all_ways_and_a_rate_that_is_lowered_too() -> None:
    ledger, clock = told(14.0)
    taken, refused = run_together(ledger, clock, [("auto", 1.0), ("auto", 0.4)], Bucket(7.0), 300.0)
    assert 0.95 * 7.0 <= sum(taken) <= 7.05
    assert refused < 0.03
    ledger.told(Figures(2.0, -1.0), 0.0)
    taken, refused = run_together(ledger, clock, [("auto", 1.0), ("auto", 0.4)], Bucket(2.0), 300.0)
    assert 0.98 * 2.0 <= sum(taken) <= 2.02
    assert refused < 0.02


@pytest.mark.parametrize("guess", [False, True])
def test_where_the_account_does_not_tell_its_rate_the_configurations_is_believed(guess: bool) -> None:
    clock = FakeClock()
    ledger = Ledger(clock)
    if guess:
        ledger.set_rate(14.0, climbs=True)
    taken, refused = run_together(ledger, clock, [(50.0, 1.0)], Bucket(50.0), 60.0)
    assert taken[0] >= 0.98 * 50.0
    taken, refused = run_together(ledger, clock, [(50.0, 1.0), ("auto", 0.1)], Bucket(55.0), 60.0)
    assert taken[0] >= 0.95 * 50.0
    assert refused < 0.005


def test_a_rate_above_what_the_account_tells_overrides_it_for_that_way_alone() -> None:
    ledger, clock = told(14.0)
    taken, _ = run_together(ledger, clock, [(50.0, 1.0)], Bucket(50.0), 60.0)
    assert taken[0] >= 0.98 * 50.0
    taken, refused = run_together(ledger, clock, [(50.0, 1.0), ("auto", 1.0), ("auto", 0.1)], Bucket(50.0), 300.0)
    assert 0.98 * 50.0 <= sum(taken) <= 50.5
    assert 0.9 <= taken[1] <= 14.1
    assert taken[2] <= 1.41
    assert refused < 0.005
    ledger.told(Figures(100.0, -1.0), 0.0)
    assert isinstance(ledger.governor("auto", 1.0), Governor), "what the account tells is the most by now"


def test_what_is_given_back_may_be_taken_by_any_way() -> None:
    ledger, clock = told(14.0)
    narrow, whole = ledger.governor(5.0, 1.0), ledger.governor("auto", 1.0)
    narrow = ledger.governor(5.0, 1.0)
    clock.advance(10.0)
    while whole.take(1, clock.monotonic()) == 0.0:
        pass
    assert narrow.take(1, clock.monotonic()) > 0.0
    whole.give_back(3)
    assert narrow.take(1, clock.monotonic()) == 0.0
    assert narrow.take(1, clock.monotonic()) == 0.0
    narrow.give_back(1)
    assert narrow.take(1, clock.monotonic()) == whole.take(1, clock.monotonic()) == 0.0
    assert whole.take(1, clock.monotonic()) > 0.0


def test_where_a_way_is_alone_it_has_one_pace() -> None:
    ledger, _ = told(14.0)
    assert isinstance(ledger.governor(5.0, 1.0), Governor)
    ledger, _ = told(14.0)
    assert isinstance(ledger.governor("auto", 1.0), Governor)
    ledger.governor("auto", 0.5)
    assert isinstance(ledger.governor("auto", 1.0), Governor)


def test_a_reserve_of_one_way_is_not_forgotten_for_that_of_another() -> None:
    ledger, _ = told(14.0)
    ledger.told(Figures(14.0, 200.0, 190.0), 0.0)
    assert ledger.reserved_from(1, Priority.NORMAL, 0.1)
    assert not ledger.reserved_from(1, Priority.NORMAL, 0.0)
    assert ledger.reserving
    ledger.told(Figures(14.0, 200.0, 20.0), 0.0)
    assert not ledger.reserving, "though nobody has asked since"
    assert not ledger.reserved_from(1, Priority.NORMAL, 0.1)


def test_a_message_to_many_is_kept_waiting_though_others_go() -> None:
    ledger, clock = told(14.0)
    ledger.told(Figures(14.0, 200.0, 150.0), 0.0)
    since = clock.wall()
    assert ledger.reserved_from(35, Priority.NORMAL, 0.1)
    clock.advance(5.0)
    assert not ledger.reserved_from(1, Priority.NORMAL, 0.1)
    ledger.told(Figures(14.0, 200.0, 151.0), 0.0)
    assert ledger.reserved_since(0.1) == since
    ledger.told(Figures(14.0, 200.0, 140.0), 0.0)
    assert ledger.reserved_since(0.1) is None


def test_what_is_under_way_counts_for_the_reserve_until_it_has_ended() -> None:
    ledger, _ = told(14.0)
    ledger.told(Figures(14.0, 200.0, 150.0), 0.0)
    ledger.begun(20)
    assert ledger.unreserved(Priority.NORMAL, 0.1) == 10
    assert ledger.reserved_from(11, Priority.NORMAL, 0.1)
    assert not ledger.reserved_from(11, Priority.HIGH, 0.1)
    ledger.spent(15)
    ledger.ended(20)
    assert ledger.unreserved(Priority.NORMAL, 0.1) == 15
    ledger.ended(20)
    assert ledger.unreserved(Priority.NORMAL, 0.1) == 15


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_an_account_without_a_rate_is_tried_so_that_ses_says_why(rate: float) -> None:
    ledger, clock = told(rate)
    clock.advance(5.0)
    assert ledger.governor("auto", 1.0).take(1, clock.monotonic()) == 0.0


@pytest.mark.parametrize("recipients", [1, 30])
@pytest.mark.parametrize("rate", [1.0, 14.0, 200.0, 1000.0])
def test_nearly_all_of_the_rate_is_used_and_hardly_a_call_refused(rate: float, recipients: int) -> None:
    result = run(Governor(rate, 0.0), Bucket(rate), recipients, max(2_000 * recipients / rate, 30.0), jitter=0.005)
    assert result.used >= 0.98
    assert result.refused < 0.005
    assert result.calls >= 990


@pytest.mark.parametrize("recipients", [1, 30])
@pytest.mark.parametrize("rate", [1.0, 14.0, 200.0, 1000.0])
def test_so_it_is_over_a_way_that_is_now_long_and_now_short(rate: float, recipients: int) -> None:
    result = run(Governor(rate, 0.0), Bucket(rate), recipients, max(2_000 * recipients / rate, 30.0), jitter=0.03)
    assert result.used >= 0.98
    assert result.refused < 0.005


@pytest.mark.parametrize("jitter", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_1_a_second_no_more_is_lost_than_what_calls_are_late_on_their_way(jitter: float, seed: int) -> None:
    # Nothing is saved up there: what a call arrives later than it could have is lost, whoever sends, and however.
    result = run(Governor(1.0, 0.0), Bucket(1.0), 1, 2_000.0, jitter=jitter, seed=seed)
    assert result.used >= 1 / (1 + jitter / 2) - 0.006
    assert result.refused < 0.0015


@pytest.mark.parametrize("limit", [0.5, 0.8])
def test_at_1_a_second_a_limit_that_was_lowered_is_found(limit: float) -> None:
    result = run(Governor(1.0, 0.0), Bucket(limit), 1, 3_000.0, jitter=0.03)
    assert result.used >= 0.8
    assert result.refused < 0.06


@pytest.mark.parametrize("rate", [14.0, 200.0])
def test_another_host_gets_its_part_and_we_the_rest(rate: float) -> None:
    result = run(Governor(rate, 0.0), Bucket(rate), 1, 300.0, others=0.5)
    assert 0.48 <= result.used <= 0.51
    assert result.refused < 0.03


@pytest.mark.parametrize(("rate", "used"), [(0.9, 0.9), (14.0, 0.98), (50.0, 0.95)])
def test_a_limit_that_nobody_tells_is_found(rate: float, used: float) -> None:
    found = run(Governor(14.0, 0.0, climbs=True), Bucket(rate), 1, 600.0)
    assert found.used >= used
    assert found.refused < (0.01 if rate > 1 else 0.1)  # most of them in the first minute


def test_a_refusal_lowers_the_pace_once_for_calls_under_way_together_and_it_comes_back() -> None:
    governor = Governor(10.0, 0.0)
    for at in (5.0, 5.1, 5.9):
        governor.throttled(at)
    assert governor.current == pytest.approx(7.0)
    governor.throttled(6.1)
    assert governor.current == pytest.approx(4.9)
    assert governor.take(1, 6.1) == pytest.approx(1 / (4.9 * 0.99))
    for second in range(7, 60):
        governor.take(1, float(second))
    assert governor.current is not None
    assert 6.65 < governor.current < 10.0
    for second in range(60, 400):
        governor.take(1, float(second))
    assert governor.current == 10.0


@pytest.mark.parametrize(("rate", "climbs"), [(50.0, False), (1_000.0, False), (50.0, True)])
def test_what_another_host_leaves_when_it_stops_is_soon_used(rate: float, climbs: bool) -> None:
    governor = Governor(rate, 0.0, climbs=climbs)
    for second in range(4):  # so much less is left of the rate for as long as the other one sends
        governor.throttled(second * 1.1)
    assert (governor.current or 0.0) < rate / 4
    for second in range(4, 90):
        governor.take(1, float(second))
    assert (governor.current or 0.0) >= 0.95 * rate


def test_a_changed_rate_is_followed_at_once_and_what_was_learnt_is_forgotten() -> None:
    governor = Governor(10.0, 0.0)
    governor.throttled(1.0)
    governor.set_rate(20.0, 2.0)
    assert governor.current == 20.0
    governor.set_rate(None, 3.0)
    assert [governor.take(50, 3.0) for _ in range(5)] == [0.0] * 5


def test_however_often_it_is_refused_something_goes() -> None:
    governor = Governor(14.0, 0.0)
    for second in range(100):
        governor.throttled(second * 1.0)
    assert governor.current == pytest.approx(14.0 / 16)


# --- the 24 hours ---


def test_what_is_sent_between_two_answers_counts() -> None:
    window = Window()
    assert (window.left(), window.used_up, window.seconds_left(0.0)) == (float("inf"), False, float("inf"))
    window.told(200, 150, window.spent)
    window.spend(30, 1.0)
    assert (window.left(), window.used_up) == (20, False)
    asked = window.spent
    window.spend(5, 2.0)  # while the question is under way
    window.told(200, 180, asked)
    assert window.left() == 15
    window.spend(20, 3.0)
    assert (window.left(), window.used_up) == (0, True)
    window.told(-1, 10_000, window.spent)
    assert not window.used_up


@pytest.mark.parametrize(
    ("sent", "priority", "waits"),
    [
        (170, Priority.NORMAL, False), (175, Priority.NORMAL, True), (175, Priority.LOW, True), (175, Priority.HIGH, False),
        (199, Priority.HIGH, False),
    ],
)  # fmt: skip
def test_what_is_kept_is_kept_for_urgent_mail(sent: float, priority: Priority, waits: bool) -> None:
    window = Window(most=200, sent=sent)
    assert (window.left_to(priority, 0.1) < 6) is waits
    assert window.left_to(priority, 0.0) == math.inf
    assert Window(most=-1, sent=sent).left_to(priority, 0.1) == math.inf


def test_the_seconds_that_are_left_follow_the_present_rate() -> None:
    window = Window(most=10_000, sent=0)
    for second in range(3600):
        window.spend(1, float(second))
    assert window.seconds_left(3600.0) == pytest.approx(6_400, rel=0.1)
    assert window.seconds_left(3600.0 + DAY) == pytest.approx(6_400 / (3_600 / DAY), rel=0.01)
