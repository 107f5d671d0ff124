"""Whom a refusal means that holds for all of a call and names nobody: one recipient among many, or the message itself.

Halves are tried until a bad recipient stands alone. Where both halves are refused it may be the message: then two recipients
are tried alone, one of each half, whose addresses nothing can be wrong with. If both are refused too, it is the message.

Invariant: nobody is blamed who was not refused, and alone only whom a call to nobody else was refused for.
Invariant: one bad recipient among n costs at most 2·⌈log₂ n⌉ + 1 calls, a bad message five, where two addresses are plain.

Source: binary splitting as in group testing (Hwang, 1972).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")
W = TypeVar("W")
ENOUGH = 2  # that are refused alone, though nothing is wrong with their addresses


@dataclass(frozen=True, slots=True)
class Blamed(Generic[T, W]):
    """Those for whom it is decided, and `why`: what was said when they were last refused. `message`: it is what was meant."""

    members: tuple[T, ...]
    why: W
    message: bool


class _Stage(Enum):
    WHOLE = auto()
    HALVES = auto()
    PROBES = auto()


class Splitting(Generic[T, W]):
    """Made for the recipients of one call. `plain` returns the domain of an address that nothing can be wrong with, else "".

    After each call for `next` one of `taken`, `refused` and `again` is due; each returns for whom it is decided by now.
    """

    def __init__(self, whole: tuple[T, ...], plain: Callable[[T], str]) -> None:
        self._waiting = [whole] if whole else []
        self._plain = plain
        self._stage = _Stage.WHOLE
        self._proven = False  # that the message is good
        self._refused: list[tuple[tuple[T, ...], W]] = []  # while it is not proven: what calls were for
        self._beside: list[tuple[tuple[T, ...], W]] = []  # those who were refused together with who is tried alone
        self._blamed: list[Blamed[T, W]] = []

    def next(self) -> tuple[T, ...] | None:
        """Return whom to call for; None where nobody is left."""
        return self._waiting.pop(0) if self._waiting else None

    def again(self, group: tuple[T, ...]) -> list[Blamed[T, W]]:
        """Call for `group` next: what is left of the last one, or all of it."""
        if group:
            self._waiting.insert(0, group)
        return self._decided()

    def taken(self) -> list[Blamed[T, W]]:
        """Take note that the last call was taken."""
        self._prove()
        return self._decided()

    def refused(self, group: tuple[T, ...], why: W, *, of_form: bool = True) -> list[Blamed[T, W]]:
        """Take note that the call for `group` was refused for an address. `of_form`: for how it is written."""
        if not of_form:
            self._prove()
        if not self._proven:
            self._refused.append((group, why))
        else:
            self._divide(group, why)
        return self._decided()

    def stop(self) -> tuple[T, ...]:
        """Return those for whom it is not decided, and forget them."""
        left = [*(group for group, _ in (*self._refused, *self._beside)), *self._waiting]
        self._waiting, self._refused, self._beside = [], [], []
        return tuple(member for group in left for member in group)

    def _decided(self) -> list[Blamed[T, W]]:
        while (self._refused or self._beside) and not self._waiting:
            self._advance()
        blamed, self._blamed = self._blamed, []
        return blamed

    def _advance(self) -> None:
        """Go on from where all was refused that was tried."""
        refused = self._refused
        if self._stage is _Stage.WHOLE:
            self._stage = _Stage.HALVES
            ((group, why),) = refused
            if len(group) == 1:
                self._refused = []
                self._blame(group, why, message=bool(self._plain(group[0])))
            else:
                self._refused, self._waiting = [], _halves(group)
        elif self._stage is _Stage.HALVES:
            self._stage = _Stage.PROBES
            self._probe()
        elif len(refused) >= ENOUGH:  # all of them alone
            for group, why in (*refused, *self._beside):
                self._blame(group, why, message=True)
            self._refused, self._beside = [], []
        else:
            self._prove()

    def _probe(self) -> None:
        """Let some be tried alone, where there are enough whose addresses are plain."""
        found: list[T] = []
        for group, _ in self._refused:
            usual = [member for member in group if self._plain(member)]
            other = [member for member in usual if all(self._plain(member) != self._plain(one) for one in found)]
            found += (other or usual)[:1]
        if len(found) < ENOUGH:
            self._prove()
            return
        together = [(group, why) for group, why in self._refused if len(group) > 1]
        self._refused = [(group, why) for group, why in self._refused if len(group) == 1]
        for group, why in together:
            self._waiting += [(member,) for member in group if member in found]
            self._beside.append((tuple(member for member in group if member not in found), why))

    def _prove(self) -> None:
        if not self._proven:
            self._proven = True
            refused, beside, self._refused, self._beside = self._refused, self._beside, [], []
            self._waiting += [half for group, _ in beside for half in _halves(group) if half]
            for group, why in reversed(refused):
                self._divide(group, why)

    def _divide(self, group: tuple[T, ...], why: W) -> None:
        if len(group) == 1:
            self._blame(group, why, message=False)
        else:
            self._waiting[:0] = _halves(group)

    def _blame(self, group: tuple[T, ...], why: W, *, message: bool) -> None:
        self._blamed.append(Blamed(group, why, message))


def _halves(group: tuple[T, ...]) -> list[tuple[T, ...]]:
    half = len(group) // 2
    return [group[:half], group[half:]]
