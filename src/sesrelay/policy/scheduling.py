"""Mail that is to leave later: how long it may be held, and until when.

A time that is past holds nothing: a reminder that comes late goes at once, rather than never.

Source: RFC 4865 (FUTURERELEASE).
"""

from __future__ import annotations

from sesrelay.mail.dates import rfc3339
from sesrelay.mail.reply import Reply

SCHEDULED = "scheduled"
"""The reason of what its client wants sent later."""
HOLD_MAX = 365 * 86400
"""Seconds. RFC 4865 has room for nine digits; a year is enough for any reminder."""
DAY = 86400.0

TOO_LONG = Reply(501, "5.5.4", f"HOLDFOR: the maximum is {HOLD_MAX} seconds")
TOO_LATE = Reply(501, "5.5.4", "HOLDUNTIL: later than the latest time in the EHLO reply")


def offered(now: float) -> str:
    """Return the parameters of FUTURERELEASE at EHLO: the longest interval, and the latest moment. The same all day."""
    return f"{HOLD_MAX} {rfc3339(latest(now), 'seconds')}"


def latest(now: float) -> float:
    """Return the latest moment until which mail is held."""
    return now // DAY * DAY + HOLD_MAX


def release(hold_for: float | None, hold_until: float | None, now: float) -> float | Reply | None:
    """Return when a message is to leave, None for at once, or the refusal. Units: seconds, and Unix seconds."""
    if hold_for is not None:
        if hold_for > HOLD_MAX:
            return TOO_LONG
        return now + hold_for if hold_for > 0 else None
    if hold_until is None or hold_until <= now:
        return None
    return TOO_LATE if hold_until > latest(now) else hold_until
