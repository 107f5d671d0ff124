"""Dates as header fields have them.

Source: RFC 5322 §3.3.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime


def rfc5322(at: float) -> str:
    """Return the moment `at` (Unix seconds) in UTC, with `+0000`: `-0000` would say that the zone is unknown."""
    return format_datetime(datetime.fromtimestamp(at, UTC))
