"""Dates as header fields have them.

Source: RFC 5322 §3.3.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache


def rfc5322(at: float) -> str:
    """Return the moment `at` (Unix seconds) in UTC, with `+0000`: `-0000` would say that the zone is unknown."""
    return _whole_second(int(at))


@lru_cache(maxsize=64)  # messages of one second share it, and formatting it costs as much as parsing a small header
def _whole_second(at: int) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
