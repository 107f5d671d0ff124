"""What is wrong with a configuration, and where: `FILE:LINE:COL: key.path: what is wrong (what was meant)`.

Invariant: a problem is one printable line, whatever the file contains.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
SHOWN_MAX = 60  # characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class Place:
    """A point in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.key}: {self.message}")


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all there are, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def dotted(path: KeyPath) -> str:
    """Return `path` as people write it: `routes[0].sender`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def printable(text: str) -> str:
    """Return `text` on one line, with what a terminal must not see escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shown(value: object) -> str:
    """Return a value from the file for a message. Never pass a secret."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None."""
    names = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else None


def meant(name: str, known: Sequence[str]) -> str:
    """Return the bracket that ends a message about a wrong name: the nearest known one, else all of them."""
    near = nearest(name, known)
    if near is not None:
        return f"(did you mean {near}?)"
    return f"(known here: {', '.join(known)})" if known else "(none is defined here)"


def one_of(names: Sequence[str]) -> str:
    """Return names as a person lists them: `a, b or c`."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
