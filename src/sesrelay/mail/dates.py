"""Moments in words: as header fields have them, and as everything else that a program reads.

Source: RFC 5322 §3.3, RFC 3339.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Literal


def rfc5322(at: float) -> str:
    """Return the moment `at` (Unix seconds) in UTC, with `+0000`: `-0000` would say that the zone is unknown."""
    return _whole_second(int(at))


def rfc3339(at: float, to_the: Literal["seconds", "milliseconds", "microseconds"] = "milliseconds") -> str:
    """Return the moment `at` (Unix seconds) in UTC, as in `2026-01-31T08:00:00.000Z`; what is finer is cut off."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=to_the)[: -len("+00:00")] + "Z"


@lru_cache(maxsize=64)  # messages of one second share it, and formatting it costs as much as parsing a small header
def _whole_second(at: int) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
