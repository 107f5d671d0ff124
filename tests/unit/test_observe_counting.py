"""Counting beside the library's own: the same events give the same text, to the octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from sesrelay.observe.counting import Counts, Timings

BOUNDS = (0.005, 0.5, 1.0, 60.0)
LABELS = ["transport", "outcome"]
WAYS = st.tuples(st.sampled_from(["ses", "out"]), st.sampled_from(["delivered", 'a "quoted" \\ one']))


@given(
    st.lists(st.tuples(WAYS, st.sampled_from([1, 2, 0.25, 50]))),
    st.lists(st.tuples(WAYS, st.floats(0, 100) | st.sampled_from(BOUNDS))),
)
def test_what_is_told_is_what_the_library_would_tell(
    added: list[tuple[tuple[str, str], float]], seen: list[tuple[tuple[str, str], float]]
) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts, timings = Counts("mail_sent", "Sent", LABELS, ours), Timings("mail_seconds", "Took", LABELS, BOUNDS, ours)
    counter = Counter("mail_sent", "Sent", LABELS, registry=theirs)
    histogram = Histogram("mail_seconds", "Took", LABELS, buckets=BOUNDS, registry=theirs)
    counts.expect("ses", "delivered")
    timings.expect("ses", "delivered")
    counter.labels("ses", "delivered")
    histogram.labels("ses", "delivered")
    for labels, amount in added:
        counts.add(*labels, amount=amount)
        counter.labels(*labels).inc(amount)
    for labels, seconds in seen:
        timings.observe(seconds, *labels)
        histogram.labels(*labels).observe(seconds)
    assert generate_latest(ours) == generate_latest(theirs)


def test_labels_that_are_not_those_named_are_no_series() -> None:
    registry = CollectorRegistry()
    Counts("mail_sent", "Sent", LABELS, registry).add("ses")
    with pytest.raises(ValueError, match="are not the labels"):
        generate_latest(registry)


def test_what_has_no_labels_stands_from_the_start() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    Timings("seconds", "Took", [], BOUNDS, ours).expect()
    Histogram("seconds", "Took", buckets=BOUNDS, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
