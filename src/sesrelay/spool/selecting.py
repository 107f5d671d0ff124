"""A Filter as SQL: the keys that it means, found where the rows are, so that a long queue is searched without being read.

Invariant: means what `Match` does, to the letter: the contract suite compares this with the store in memory, which asks it.
Invariant: no statement looks at more than SCAN rows of a run, so no reader holds up a checkpoint for long.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, cast

import apsw

from sesrelay.spool.matching import Match, Pattern
from sesrelay.spool.query import Row, row, rows, the_row
from sesrelay.spool.records import CODE, HELD, QUEUED, Key

SCAN_FIRST = 1_000
SCAN = 32_000  # rows of an index looked at in one statement: some hundredths of a second
SCAN_CHOSEN = 8_000  # the same on the writer, where others wait
END: Key = (2**63 - 1, 2**63 - 1)

OPEN_RUN = "delivery AS d INDEXED BY delivery_open"
OPEN = "d.state = ? AND d.state < 3 AND d.transport = ? AND "
ALL_RUN = "delivery AS d"
MESSAGE_RUN = "d.message = ? AND "
WITH_MESSAGE = " CROSS JOIN message AS m ON m.id = d.message"
BEHIND = "(d.message, d.n) > (?, ?)"
UP_TO = " AND (d.message, d.n) <= (?, ?)"
BOUNDARY = "SELECT d.message, d.n FROM {run} WHERE {where}" + BEHIND + " ORDER BY d.message, d.n LIMIT 1 OFFSET ?"
COUNT = "SELECT count(*) FROM {run} WHERE {where}" + BEHIND + UP_TO
SELECT = "SELECT d.message, d.n FROM {run} WHERE {where}" + BEHIND + UP_TO + "{meant} ORDER BY d.message, d.n LIMIT ?"


class Page(NamedTuple):
    """What was found on one page, where the next one starts (None: nowhere), and how many deliveries were looked at."""

    keys: list[Key]
    after: Key | None
    looked: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows that stand in order of arrival: all that has one state and transport, one message's, or all there are."""

    source: str
    where: str
    bindings: Row

    def boundary(self, cursor: apsw.Cursor, after: Key, scan: int) -> Key | None:
        """Return the last of the next `scan` keys; None where there are fewer."""
        found = row(cursor, BOUNDARY.format(run=self.source, where=self.where), (*self.bindings, *after, scan - 1))
        return cast("Key | None", found)

    def count(self, cursor: apsw.Cursor, after: Key, until: Key) -> int:
        found = the_row(cursor, COUNT.format(run=self.source, where=self.where), (*self.bindings, *after, *until))
        return int(found[0])

    def keys(self, cursor: apsw.Cursor, meant: _Meant, after: Key, until: Key, limit: int) -> list[Key]:
        statement = SELECT.format(run=self.source + meant.joined, where=self.where, meant=meant.condition)
        return cast("list[Key]", rows(cursor, statement, (*self.bindings, *after, *until, *meant.bindings, limit)))


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a run does not settle by itself. `joined`: whether the message's row is looked at."""

    condition: str
    bindings: Row
    joined: str


CHOSEN = _Meant(" AND d.via IS NOT NULL AND d.via <> d.transport", (), "")


def page(cursor: apsw.Cursor, match: Match, transports: Sequence[str], after: Key, limit: int) -> Page:
    """Return the next keys, at most `limit`; where little matches, from a stretch that grows as nothing is found."""
    if not _sayable(match):
        return Page([], None, 0)
    runs, meant = _runs(match, transports), _meant(match)
    if match.ids is not None:
        numbers = [number for number in match.ids if number >= after[0]]
        found = list(islice(_of_messages(cursor, numbers, meant, after, limit), limit))
        return Page(found, found[-1] if len(found) == limit else None, len(found))
    keys: list[Key] = []
    looked, scan = 0, max(limit, SCAN_FIRST)
    next_: Key | None = after
    while next_ is not None and not keys and looked < SCAN:
        start, ends = next_, [run.boundary(cursor, next_, scan) for run in runs]
        end = min((each for each in ends if each is not None), default=None)
        found_in = [run.keys(cursor, meant, start, end or END, limit) for run in runs]
        keys = found_in[0] if len(found_in) == 1 else list(islice(heapq.merge(*found_in), limit))
        next_ = keys[-1] if len(keys) == limit else end
        looked += sum(run.count(cursor, start, next_ or END) for run in runs)
        scan = min(scan * 4, SCAN)
    return Page(keys, next_, looked)


def chosen(cursor: apsw.Cursor, transports: Sequence[str], after: Key, limit: int) -> tuple[list[Key], Key | None]:
    """Return at most `limit` of what is queued for another way than the one that an operator chose, and where to go on."""
    runs = [_Run(OPEN_RUN, OPEN, (QUEUED, transport)) for transport in transports]
    ends = [run.boundary(cursor, after, SCAN_CHOSEN) for run in runs]
    end = min((each for each in ends if each is not None), default=None)
    keys = sorted(key for run in runs for key in run.keys(cursor, CHOSEN, after, end or END, limit))[:limit]
    return keys, keys[-1] if len(keys) == limit else end


def _of_messages(cursor: apsw.Cursor, numbers: Sequence[int], meant: _Meant, after: Key, limit: int) -> Iterator[Key]:
    for number in numbers:
        run = _Run(ALL_RUN, MESSAGE_RUN, (number,))
        yield from run.keys(cursor, meant, max(after, (number, -1)), END, limit)


def _runs(match: Match, transports: Sequence[str]) -> list[_Run]:
    if _looks_at_all(match):
        return [_Run(ALL_RUN, "", ())]
    wanted = [each for each in transports if match.transport is None or each == match.transport]
    codes = sorted(CODE[state] for state in match.states)
    return [_Run(OPEN_RUN, OPEN, (code, transport)) for code in codes if code <= HELD for transport in wanted]


def _looks_at_all(match: Match) -> bool:
    """Tell whether the index of what is open does not do."""
    return any(state.final for state in match.states)


def _meant(match: Match) -> _Meant:
    """Return what is to be asked of each row, what is near at hand first."""
    parts: list[str] = []
    bindings: list[object] = []
    joined = False
    if match.ids is not None or _looks_at_all(match):
        codes = sorted(CODE[state] for state in match.states)
        parts.append(f"d.state IN ({','.join(map(str, codes))})")
        if match.transport is not None:
            parts.append("d.transport = ?")
            bindings.append(match.transport)
    if match.recipient is not None:
        parts.append(_address("d.recipient", match.recipient, bindings))
    if match.before is not None:
        parts.append("m.accepted <= ?")
        bindings.append(match.before)
        joined = True
    if match.sender is not None:
        parts.append(_address("m.sender", match.sender, bindings))
        joined = True
    return _Meant("".join(f" AND {part}" for part in parts), tuple(bindings), WITH_MESSAGE if joined else "")


def _address(column: str, pattern: Pattern, bindings: list[object]) -> str:
    """Return the condition; octets are compared, since SQLite's functions on text end at a NUL."""
    if pattern.suffix is not None:
        octets = pattern.suffix.encode()
        bindings += [-len(octets), octets]
        return f"substr(CAST({column} AS BLOB), ?) = ?"
    bindings.append(pattern.whole)
    return f"{column} = ?"


def _sayable(match: Match) -> bool:
    """Tell whether a row can be what is looked for: none has what UTF-8 cannot carry, nor a domain that is none."""
    patterns = [each for each in (match.sender, match.recipient) if each is not None]
    try:
        for text in (match.transport, *(each.whole for each in patterns)):
            (text or "").encode()
    except UnicodeEncodeError:
        return False
    return all(each.whole is not None or each.suffix is not None for each in patterns)
