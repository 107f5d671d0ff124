"""What is asked of the writer, and how much of it goes together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sesrelay.spool.bulk import Operation
from sesrelay.spool.transaction import Transaction

GROUP_MAX = 1_000  # operations in one transaction: bounds what one caller waits for the others
GROUP_OCTETS = 16 * 1024 * 1024
IDLE = 0.25  # seconds without work after which the log is checkpointed
LINGER = 0.001  # seconds that outcomes wait for an acceptance to share its sync; it saves a lone client every second sync


class Job:
    """One operation, and what came of it."""

    __slots__ = ("error", "operation", "result", "run")

    def __init__(self, run: Callable[[Transaction], Any], operation: Operation[Any] | None = None) -> None:
        self.run = run
        self.operation = operation
        self.result: Any = None
        self.error: BaseException | None = None
