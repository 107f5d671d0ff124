"""How urgent a message is."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Smaller goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2
