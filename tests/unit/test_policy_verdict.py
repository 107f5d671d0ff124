"""Verdicts: every outcome against what it may and may not do to a delivery."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, State
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Recipient, Rung
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy import pausing
from sesrelay.policy.pace import Pace
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.stopping import CUT
from sesrelay.policy.verdict import KEPT, Verdict, decide, overdue

ACCEPTED = 1_000_000.0
RETRY = RetryPolicy((30.0, 120.0), max_age=1000.0, delay_warning=400.0)
TEMPORARY, PERMANENT, GOOD = Reply(451, "4.2.0", "later"), Reply(550, "5.1.1", "no"), Reply(250, "2.0.0", "ok")


def delivery(**changes: object) -> Delivery:
    recipient = Recipient("b@example.org")
    message = Message("0" * 13, Envelope("a@example.com", (recipient,)), Origin(), 10, ACCEPTED)
    made = Delivery(DeliveryId(message.id, 0), message, recipient, Placement("r", LaneKey("t", "n")), State.IN_FLIGHT, attempts=1)
    return replace(made, **changes)  # type: ignore[arg-type]


def judge(outcome: Outcome, one: Delivery | None = None, *, age: float = 10.0, pause: float = 0.0) -> Verdict:
    return decide(one or delivery(), outcome, transport="t", retry=RETRY, now=ACCEPTED + age, chance=0.5, pause=pause)


def test_delivered() -> None:
    verdict = judge(Delivered(GOOD, "ses-1"))
    assert (verdict.state, verdict.end, verdict.remote_id, verdict.report) == (State.DELIVERED, "delivered", "ses-1", None)


def test_failed_is_reported() -> None:
    verdict = judge(Failed(PERMANENT))
    assert (verdict.state, verdict.end, verdict.report, verdict.reply) == (State.FAILED, "failed", "failed", "550 5.1.1 no")


@pytest.mark.parametrize(
    ("notify", "outcome", "report"),
    [
        (None, Failed(PERMANENT), "failed"),
        (frozenset({"NEVER"}), Failed(PERMANENT), None),
        (frozenset({"SUCCESS"}), Failed(PERMANENT), None),
        (frozenset({"FAILURE"}), Failed(PERMANENT), "failed"),
        (None, Delivered(GOOD), None),
        (frozenset({"SUCCESS"}), Delivered(GOOD), "relayed"),
        (frozenset({"SUCCESS"}), Delivered(GOOD, dsn_passed_on=True), None),
        (frozenset({"FAILURE"}), Deferred(TEMPORARY), None),
        (frozenset({"DELAY"}), Deferred(TEMPORARY), "delayed"),
    ],
)
def test_notify(notify: frozenset[str] | None, outcome: Outcome, report: str | None) -> None:
    one = delivery(recipient=Recipient("b@example.org", notify))  # type: ignore[arg-type]
    assert judge(outcome, one, age=500.0).report == report


def test_the_null_sender_is_never_told() -> None:
    message = replace(delivery().message, envelope=Envelope("", ()))
    for outcome in (Failed(PERMANENT), Deferred(TEMPORARY), Delivered(GOOD)):
        assert judge(outcome, delivery(message=message), age=5000.0).report is None


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("age", [10.0, 999.0, 1000.0, 1e9])
@pytest.mark.parametrize("reason", [None, PauseReason.UNAVAILABLE])
def test_deferred_by_scope_and_age(scope: Scope, age: float, reason: PauseReason | None) -> None:
    verdict = judge(Deferred(TEMPORARY, scope, reason), age=age, pause=60.0)
    if age < 1000.0:
        assert verdict.state is State.QUEUED
        assert verdict.attempts == (1 if scope in (Scope.RECIPIENT, Scope.MESSAGE) else 0)
        assert verdict.due > ACCEPTED + age
    elif scope in (Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN) or (scope is Scope.MESSAGE and reason is None):
        assert (verdict.state, verdict.end, verdict.report) == (State.FAILED, "expired", "failed")
    else:
        assert (verdict.state, verdict.reason, verdict.end) == (State.HELD, "max_age", None)


def test_ambiguous_waits_stays_and_is_held_after_three_doubts() -> None:
    lost = Deferred(TEMPORARY, Scope.MESSAGE, ambiguous=True)
    one = delivery()
    for doubts in (1, 2):
        verdict = judge(lost, one)
        assert (verdict.state, verdict.doubts, verdict.pinned) == (State.QUEUED, doubts, "t")
        assert verdict.due >= ACCEPTED + 10.0 + 60.0
        one = replace(one, doubts=verdict.doubts, pinned=verdict.pinned)
    verdict = judge(lost, one)
    assert (verdict.state, verdict.reason, verdict.report) == (State.HELD, "in_doubt", None)


def test_what_may_have_been_sent_never_fails_by_age() -> None:
    assert judge(Deferred(TEMPORARY, ambiguous=True), age=1e6).state is State.HELD
    assert judge(Deferred(TEMPORARY), delivery(doubts=1, pinned="t"), age=1e6).state is State.HELD


def test_what_a_transport_keeps_is_nowhere_else_whatever_a_crash_left_in_doubt() -> None:
    verdict = judge(Held(TEMPORARY, KEPT), delivery(doubts=1, pinned="t"))
    assert (verdict.state, verdict.doubts, verdict.pinned) == (State.HELD, 0, None)


def test_held_costs_no_attempt() -> None:
    verdict = judge(Held(TEMPORARY, "policy"))
    assert (verdict.state, verdict.reason, verdict.attempts) == (State.HELD, "policy", 0)


@pytest.mark.parametrize(
    "one", [delivery(attempts=4), delivery(attempts=4, pinned="t", doubts=1), delivery(attempts=1, warned=True)]
)
@pytest.mark.parametrize("age", [10.0, 500.0, 1500.0])
def test_what_was_cut_before_it_left_is_tried_whatever_its_age(one: Delivery, age: float) -> None:
    verdict = judge(CUT, one, age=age)
    assert (verdict.state, verdict.due, verdict.attempts) == (State.QUEUED, ACCEPTED + age, one.attempts - 1)
    assert (verdict.pinned, verdict.doubts, verdict.warned, verdict.report) == (one.pinned, one.doubts, one.warned, None)


def test_warned_once() -> None:
    verdict = judge(Deferred(TEMPORARY), age=400.0)
    assert (verdict.report, verdict.warned) == ("delayed", True)
    assert judge(Deferred(TEMPORARY), delivery(warned=True), age=500.0).report is None


def test_the_last_attempt_is_at_expiry() -> None:
    assert judge(Deferred(TEMPORARY), delivery(attempts=2), age=950.0).due == ACCEPTED + 1000.0


@pytest.mark.parametrize(("told", "wait"), [(None, 30.0), (5.0, 30.0), (77.0, 77.0)])
def test_it_is_not_tried_again_sooner_than_the_other_side_allows(told: float | None, wait: float) -> None:
    assert judge(Deferred(TEMPORARY, Scope.MESSAGE, retry_after=told)).due == ACCEPTED + 10.0 + wait


ENDS_OF_A_REPORT: list[tuple[Outcome | None, float]] = [  # None: it waits behind a pause
    (Failed(PERMANENT), 10.0),
    (Held(TEMPORARY, "no_route"), 10.0),
    (Deferred(TEMPORARY, Scope.RECIPIENT), 1e6),
    (Deferred(TEMPORARY, Scope.NEXTHOP), 1e6),
    (None, 1e6),
]


@pytest.mark.parametrize("rung", list(Rung))
@pytest.mark.parametrize(("outcome", "age"), ENDS_OF_A_REPORT)
def test_a_report_that_finds_no_way_goes_lower_until_the_folder_and_from_there_nowhere(
    rung: Rung, outcome: Outcome | None, age: float
) -> None:
    one = delivery(message=replace(delivery().message, envelope=Envelope("", ()), report=Descent(rung)))
    verdict = judge(outcome, one, age=age) if outcome else overdue(one, RETRY, ACCEPTED + age)
    assert verdict is not None
    if rung < Rung.FOLDER:
        assert (verdict.state, verdict.report) == (State.FAILED, "lower")
    else:
        assert (verdict.state, verdict.report) == (State.HELD, None)


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.SENDER_DOMAIN])
def test_a_report_waits_for_its_way_while_that_may_still_serve(scope: Scope) -> None:
    one = delivery(message=replace(delivery().message, envelope=Envelope("", ()), report=Descent(Rung.ROUTE)))
    verdict = judge(Deferred(TEMPORARY, scope), one)
    assert (verdict.state, verdict.report) == (State.QUEUED, None)
    held = judge(Held(TEMPORARY, "content_lost"), one)
    assert (held.state, held.reason, held.report) == (State.HELD, "content_lost", None), "no other way has what is lost"


def test_a_report_that_may_have_been_sent_goes_no_other_way() -> None:
    one = delivery(message=replace(delivery().message, report=Descent(Rung.ROUTE)), doubts=1, pinned="t")
    verdicts = [judge(Deferred(TEMPORARY, Scope.SENDER_DOMAIN), one), overdue(one, RETRY, ACCEPTED + 1e6)]
    verdicts += [judge(Deferred(TEMPORARY, scope), one, age=1e6) for scope in Scope]
    verdicts += [judge(Held(TEMPORARY, reason), one) for reason in ("no_route", "permission")]
    assert [verdict and (verdict.state, verdict.pinned, verdict.report) for verdict in verdicts] == [
        (State.QUEUED, "t", None), *[(State.HELD, "t", None)] * 9
    ]  # fmt: skip


OUTCOMES = st.one_of(
    st.just(Delivered(GOOD, "ses-1")),
    st.builds(Failed, st.just(PERMANENT), st.sampled_from(Scope)),
    st.builds(Held, st.just(TEMPORARY), st.sampled_from(["policy", "no_route"])),
    st.builds(Deferred, st.just(TEMPORARY), st.sampled_from(Scope), st.sampled_from([None, *PauseReason]), ambiguous=st.booleans()),
)


@given(
    outcome=OUTCOMES,
    rung=st.sampled_from([None, *Rung]),
    sender=st.sampled_from(["", "a@example.com"]),
    notify=st.sampled_from([None, frozenset({"NEVER"}), frozenset({"SUCCESS", "FAILURE", "DELAY"})]),
    attempts=st.integers(1, 5),
    doubts=st.integers(0, 2),
    warned=st.booleans(),
    age=st.sampled_from([0.0, 399.0, 400.0, 999.0, 1000.0, 1e6]),
)
def test_a_verdict_forgets_nothing_of_what_was(
    outcome: Outcome,
    rung: Rung | None,
    sender: str,
    notify: frozenset[str] | None,
    attempts: int,
    doubts: int,
    warned: bool,
    age: float,
) -> None:
    recipient = Recipient("b@example.org", notify)  # type: ignore[arg-type]
    report = None if rung is None else Descent(rung)
    message = replace(delivery().message, envelope=Envelope(sender, (recipient,)), report=report)
    pinned = "t" if doubts else None
    one = delivery(message=message, recipient=recipient, attempts=attempts, doubts=doubts, pinned=pinned, warned=warned)
    verdict = judge(outcome, one, age=age)
    doubt = isinstance(outcome, Deferred) and outcome.ambiguous
    assert verdict.reply == str(outcome.reply)
    assert verdict.attempts in (attempts, attempts - 1)
    assert (verdict.doubts, verdict.pinned) == ((doubts + 1, "t") if doubt else (doubts, pinned))
    assert verdict.warned == (warned or verdict.report == "delayed"), "nobody is warned twice"
    assert (verdict.end is not None) == verdict.state.final
    assert verdict.due >= ACCEPTED + age
    if verdict.state is State.HELD:
        assert (verdict.due, verdict.report, bool(verdict.reason)) == (ACCEPTED + age, None, True)
    if verdict.state is State.FAILED and (verdict.report is None or not sender):
        assert verdict.report == "lower" or "NEVER" in (notify or ()), "nothing fails in silence that was not asked for"
    if doubt or (doubts and not isinstance(outcome, Delivered | Failed)):
        assert verdict.state in (State.QUEUED, State.HELD), "it may have arrived"


def test_overdue_behind_a_pause() -> None:
    one = delivery(state=State.QUEUED, attempts=0)
    assert overdue(one, RETRY, ACCEPTED + 100.0) is None
    warned = overdue(one, RETRY, ACCEPTED + 400.0)
    assert warned is not None
    assert (warned.state, warned.report) == (State.QUEUED, "delayed")
    held = overdue(one, RETRY, ACCEPTED + 1000.0)
    assert held is not None
    assert (held.state, held.reason) == (State.HELD, "max_age")


def test_schedule_repeats_its_last_wait_with_jitter() -> None:
    assert [RETRY.delay(n, 0.5) for n in (1, 2, 3, 9)] == [30.0, 120.0, 120.0, 120.0]
    assert RETRY.delay(1, 0.0) == pytest.approx(27.0)
    assert RETRY.delay(1, 0.999) < 33.0


@pytest.mark.parametrize(
    ("outcome", "streak", "low", "high"),
    [
        (Deferred(TEMPORARY, Scope.NEXTHOP, PauseReason.THROTTLED), 1, 0.75, 1.25),
        (Deferred(TEMPORARY, Scope.NEXTHOP, PauseReason.THROTTLED), 20, 45.0, 75.0),
        (Deferred(TEMPORARY, Scope.NEXTHOP, PauseReason.SUSPENDED), 3, 225.0, 375.0),
        (Deferred(TEMPORARY, Scope.NEXTHOP, PauseReason.CREDENTIALS, retry_after=9.0), 3, 9.0, 9.0),
        (Deferred(TEMPORARY, Scope.RECIPIENT_DOMAIN), 2, 108.0, 132.0),
        (Deferred(TEMPORARY, Scope.NEXTHOP), 1, 3.75, 6.25),
        (Deferred(TEMPORARY, Scope.NEXTHOP), 30, 225.0, 375.0),
    ],
)
def test_pause_lengths(outcome: Deferred, streak: int, low: float, high: float) -> None:
    for chance in (0.0, 0.5, 0.999):
        assert low <= pausing.duration(outcome, streak, RETRY.schedule, chance) <= high


@pytest.mark.parametrize("rate", [1.0, 14.0, 200.0])
@pytest.mark.parametrize("recipients", [1, 30])
def test_pace_uses_the_rate_and_never_more(rate: float, recipients: int) -> None:
    pace = Pace(rate)
    now, sent, seconds = 0.0, 0, 600.0
    while now < seconds:
        wait = pace.take(recipients, now)
        if wait == 0.0:
            sent += recipients
        now += wait
    assert sent <= rate * seconds + recipients + pace.burst
    assert sent >= 0.98 * rate * seconds


def test_pace_gives_back() -> None:
    pace = Pace(1.0)
    assert pace.take(5, 0.0) == 0.0
    assert pace.take(1, 0.0) == pytest.approx(5.0)
    pace.give_back(5)
    assert pace.take(1, 0.0) == 0.0
    assert Pace(None).take(10**6, 0.0) == 0.0
    assert Pace(0.0).take(1, 0.0) > 0.0
