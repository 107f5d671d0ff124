"""Moments as programs read them: in UTC, and never later than they are."""

from __future__ import annotations

from typing import Literal

import pytest

from sesrelay.mail.dates import rfc3339


@pytest.mark.parametrize(
    ("at", "to_the", "text"),
    [
        (1_800_000_000.0, "seconds", "2027-01-15T08:00:00Z"),
        (1_800_000_000.9999, "seconds", "2027-01-15T08:00:00Z"),
        (1_800_000_000.0, "milliseconds", "2027-01-15T08:00:00.000Z"),
        (1_800_000_000.1239, "milliseconds", "2027-01-15T08:00:00.123Z"),
        (1_800_000_000.125001, "microseconds", "2027-01-15T08:00:00.125001Z"),
    ],
)
def test_what_is_finer_is_cut_off(at: float, to_the: Literal["seconds", "milliseconds", "microseconds"], text: str) -> None:
    assert rfc3339(at, to_the) == text
