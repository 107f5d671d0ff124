"""Between values and rows, without a store."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.delivery import State
from sesrelay.policy.verdict import End, Report, Verdict
from sesrelay.spool.records import verdict_of, verdict_row

words = st.none() | st.text()
numbers = st.integers(0, 1_000)
verdicts = st.builds(
    Verdict, st.sampled_from(State), st.floats(0, 1e10), numbers, numbers, words, words, words, words, st.booleans(),
    st.none() | st.sampled_from(get_args(End)), st.none() | st.sampled_from(get_args(Report)),
)  # fmt: skip


@given(verdicts)
def test_a_verdict_comes_back_as_it_went_but_for_its_report(verdict: Verdict) -> None:
    assert verdict_of(verdict_row(verdict)) == replace(verdict, report=None)
