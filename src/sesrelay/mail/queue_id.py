"""Queue ids: 13 characters of base 32 (0-9, a-v) over a 63-bit number that grows with time.

Source: ours; Postfix's long queue ids are the model (never reused, sorted by time of arrival).
"""

from __future__ import annotations

import re

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_WIDTH = 13
PATTERN = re.compile(r"[0-9a-v]{13}\Z")

_TICKS = 1 << 16  # a second; 48 bits of ticks last until the year 2106
_ENTROPY = 1 << 15


def new(wall: float, entropy: int) -> str:
    """Return the queue id for the moment `wall`.

    Units: `wall` in Unix seconds; `entropy` any non-negative integer, of which 15 bits are used.
    """
    return encode(int(wall * _TICKS) * _ENTROPY + entropy % _ENTROPY)


def encode(number: int) -> str:
    """Return the 13 characters of `number` (0 ≤ number < 2**63)."""
    chars = []
    for _ in range(_WIDTH):
        number, digit = divmod(number, 32)
        chars.append(_DIGITS[digit])
    return "".join(reversed(chars))


def decode(queue_id: str) -> int:
    """Return the number behind `queue_id`, which the store uses as its key.

    Raises: ValueError for what is no queue id.
    """
    if not PATTERN.match(queue_id):
        raise ValueError(f"{queue_id!r} is not a queue id")
    return int(queue_id, 32)
