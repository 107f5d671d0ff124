"""How many attempts at once a next hop gets: more as it takes mail, half as many at each trouble; and who goes first for that.

Source: Postfix's destination concurrency (`initial_destination_concurrency`, its feedback); RFC 5681 §3.1 is the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from sesrelay.mail.outcome import Deferred, Outcome, Scope

FIRST = 5  # before it has taken anything (Postfix's initial_destination_concurrency)


class Standing(IntEnum):
    """How a next hop has served last: it said what becomes of the message, or it was `troubled`."""

    SERVES = 0
    UNKNOWN = 1
    TROUBLED = 2


_WIDE = frozenset({Scope.NEXTHOP, Scope.RECIPIENT_DOMAIN, Scope.TRANSPORT})


def troubled(outcomes: Iterable[Outcome]) -> bool:
    """Tell whether the host did not serve, whatever the message was: a refusal of one recipient is no trouble of the host's."""
    return any(isinstance(one, Deferred) and (one.scope in _WIDE or one.ambiguous) for one in outcomes)


def next_window(window: int, *, taken: bool, trouble: bool, limit: int) -> int:
    """Return the window after an attempt. `limit`: the transport's concurrency."""
    if trouble:
        return max(1, min(window, limit) // 2)
    return min(window + 1, max(limit, 1)) if taken else window
