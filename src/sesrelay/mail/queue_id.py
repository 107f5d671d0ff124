"""Queue ids: 13 characters of base 32 (0-9, a-v) over a 63-bit number that grows with time.

Source: ours; Postfix's long queue ids are the model (never reused, sorted by time of arrival).
"""

from __future__ import annotations

import re
from functools import lru_cache

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]  # two digits at a time: each message asks for one id
PATTERN = re.compile(r"[0-7][0-9a-v]{12}\Z")  # 63 bits

END = (1 << 63) - 1  # no number is above
_TICKS = 1 << 16  # a second; 48 bits of ticks last until the year 2106
_ENTROPY = 1 << 15


def new(wall: float, entropy: int) -> str:
    """Return the queue id for the moment `wall`.

    Units: `wall` in Unix seconds; `entropy` any non-negative integer, of which 15 bits are used.
    """
    return encode(number(wall, entropy))


def number(wall: float, entropy: int) -> int:
    """Return the number behind the queue id for the moment `wall`; see `new`."""
    return int(wall * _TICKS) * _ENTROPY + entropy % _ENTROPY


def accepted_before(moment: float, now: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return above and below which numbers the ids are of what may have been accepted before `moment`: those of then, and those of
    the future, which were made while the clock was ahead. Units: Unix seconds
    """
    return (-1, number(max(moment, 0.0), 0)), (number(max(now, 0.0), 0), END)


def encode(number: int) -> str:
    """Return the 13 characters of `number` (0 ≤ number < 2**63)."""
    return (
        _DIGITS[number >> 60]
        + _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


@lru_cache(maxsize=4096)  # a message on its way is asked for its number four times
def decode(queue_id: str) -> int:
    """Return the number behind `queue_id`, which the store uses as its key.

    Raises: ValueError for what is no queue id.
    """
    if not PATTERN.match(queue_id):
        raise ValueError(f"{queue_id!r} is not a queue id")
    return int(queue_id, 32)
