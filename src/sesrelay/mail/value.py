"""Values that are made for each message, and never changed.

A frozen dataclass costs ten times a plain one to make, which with some thirty of them a message is a tenth of what a
message costs. So it is the type checker that holds these frozen: for it they are dataclasses like any other.

Invariant: nobody sets an attribute of a value; mypy refuses it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass, fields

    def value(*, frozen, slots, eq=True):
        """Return a decorator: a dataclass with equality and a hash, as a frozen one has them."""
        assert frozen
        make = dataclass(slots=slots, eq=eq, unsafe_hash=eq)

        def decorate(cls):
            made = make(cls)
            names = [field.name for field in fields(made)]
            made.__reduce__ = _reducer(made, names)
            return made

        return decorate

    def _reducer(cls, names):
        """Return how such a value is pickled: as a call of its class, which costs a third of what dataclasses do with slots."""
        all_of = attrgetter(*names)
        return (lambda self: (cls, all_of(self))) if len(names) > 1 else (lambda self: (cls, (all_of(self),)))


__all__ = ["value"]
