"""Values that are made for each message, and never changed.

A frozen dataclass costs ten times a plain one to make, which with some thirty of them a message is a tenth of what a
message costs. So it is the type checker that holds these frozen: for it they are dataclasses like any other.

Invariant: nobody sets an attribute of a value; mypy refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen, slots, eq=True):
        """Return a decorator: a dataclass with equality and a hash, as a frozen one has them."""
        assert frozen
        return dataclass(slots=slots, eq=eq, unsafe_hash=eq)


__all__ = ["value"]
