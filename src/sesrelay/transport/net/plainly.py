"""What went wrong, in a few words for an operator."""

from __future__ import annotations


def plainly(error: BaseException) -> str:
    """Return the text of `error`; where it has none, what its type says."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
