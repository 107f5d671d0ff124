"""What the store says when it cannot: at start, for want of room, or because another holds it."""

from __future__ import annotations

from sesrelay.seams import SpoolError


class StoreRefused(SpoolError):
    """The store cannot be opened; the text says why and what mends it. Nothing was changed."""


class StoreDamaged(StoreRefused):
    """The store's file is not whole; what can be read of it can be salvaged."""


class LockHeld(SpoolError):
    """Another process holds the state directory. `pid` is None where it cannot be read."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path} is held by another process" + (f" (pid {pid})" if pid else ""))
        self.pid = pid


def as_spool_error(error: BaseException) -> SpoolError:
    """Return what a caller is told: a SpoolError, with the trouble behind it."""
    if isinstance(error, SpoolError):
        return error
    told = SpoolError(f"the store failed: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
