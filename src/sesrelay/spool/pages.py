"""The rows of an SQLite file read page by page, without its help: what is whole can be had whatever else is not.

Invariant: reads only, and takes nothing on trust: a page or row that makes no sense is passed over.
Source: sqlite.org/fileformat2.html (pages §1.6, records §2.1, the log §4).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = 4096  # octets of a page where the header does not tell: what ours have
TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x0A, 0x02
CELLS = {TABLE_LEAF: 8, INDEX_LEAF: 8, INDEX_INTERIOR: 12}
"""Kinds of pages that hold rows, and the octets of their headers."""
PAYLOAD_MAX = 1 << 30
MAGIC = (0x377F0682, 0x377F0683)  # of a log
HEAD, FRAME = 32, 24  # octets of its header, and of what stands before each page in it

Value = int | float | str | bytes | None


class Row(NamedTuple):
    """`rowid` is None for a row of an index or of a table WITHOUT ROWID."""

    rowid: int | None
    values: tuple[Value, ...]


_Places = dict[int, int | None]
"""Where a page stands in the log; None where that place is damaged."""


class _Senseless(Exception):
    """This is no cell, or not a whole one."""


class Pages:
    """A database file and its log, as a reader would see them after the last commit. Raises: OSError"""

    def __init__(self, path: Path) -> None:
        # A file that is gone may have left its log, and mail in it.
        self._file = os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._log: int | None = None
        self._at: _Places = {}
        try:
            head = os.pread(self._file, 100, 0)
            said = int.from_bytes(head[16:18], "big")
            said = 65536 if said == 1 else said
            self.size = said if said in {1 << n for n in range(9, 17)} else PAGE
            self.count = os.fstat(self._file).st_size // self.size
            log = Path(f"{path}-wal")
            if log.exists():
                self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
                self._read_log()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for descriptor in (self._file, self._log):
            if descriptor is not None:
                os.close(descriptor)
        self._log = None

    def page(self, number: int) -> bytes:
        if number in self._at and self._log is not None:
            at = self._at[number]
            return b"" if at is None else os.pread(self._log, self.size, at)
        return os.pread(self._file, self.size, (number - 1) * self.size)

    def rows(self) -> Iterator[Row]:
        """Yield every row of every table and index, in the order of pages."""
        free = self._free()
        for number in range(1, self.count + 1):
            if number not in free:
                yield from self._rows_of(self.page(number), 100 if number == 1 else 0)

    # --- the log ---------------------------------------------------------------------------------------------

    def _read_log(self) -> None:
        """Note where the newest committed copy of each page stands, also behind a damaged frame; of what that had there is no copy.

        A transaction with such a frame counts where another goes on from its sums: then it was synced, not cut off by a power loss.
        """
        assert self._log is not None
        head = os.pread(self._log, HEAD, 0)
        if len(head) < HEAD:
            return
        magic, _, size, _, *salts, first, second = struct.unpack(">8I", head)
        order, sums = ">" if magic & 1 else "<", (first, second)
        if magic not in MAGIC or size != self.size or sums != _sums(head[:24], (0, 0), order):
            # It is damaged; what stands first tells whose it all is.
            order, size = ">" if sys.byteorder == "big" else "<", self.size
            salts = list(struct.unpack(">2I", os.pread(self._log, 16, HEAD)[8:].ljust(8, b"\0")))
        place = HEAD
        open_: _Places = {}
        doubtful: tuple[_Places, int] = {}, 0
        while len(frame := os.pread(self._log, FRAME + size, place)) == FRAME + size:
            number, after, of_1, of_2, *said = struct.unpack(">6I", frame[:FRAME])
            sums = _sums(frame[FRAME:], _sums(frame[:8], sums, order), order)
            whole = [of_1, of_2] == salts and sums == tuple(said)
            if whole:
                self._count(*doubtful)
            doubtful = {}, 0
            open_[number] = place + FRAME if whole else None
            sums = said[0], said[1]
            place += FRAME + size
            if after:
                if None in open_.values():
                    doubtful = open_, after
                else:
                    self._count(open_, after)
                open_ = {}

    def _count(self, places: _Places, pages: int) -> None:
        self._at.update(places)
        self.count = max(self.count, pages)

    def _free(self) -> set[int]:
        """Return the pages that the file holds ready: what stands in them is of the past."""
        free: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big") if self.page(1).startswith(b"SQLite format 3\0") else 0
        while 0 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            page = self.page(trunk)
            if len(page) < self.size:
                break
            trunk, leaves = struct.unpack(">2I", page[:8])
            leaves = min(leaves, (self.size - 8) // 4)
            free.update(struct.unpack(f">{leaves}I", page[8 : 8 + 4 * leaves]))
        return free

    # --- rows ------------------------------------------------------------------------------------------------

    def _rows_of(self, page: bytes, start: int) -> Iterator[Row]:
        if len(page) < self.size or page[start] not in CELLS:
            return
        kind = page[start]
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        first = start + CELLS[kind]
        if first + 2 * count > self.size:
            return
        for cell in struct.unpack(f">{count}H", page[first : first + 2 * count]):
            try:
                yield self._row(page, cell, kind)
            except (_Senseless, IndexError, UnicodeDecodeError, struct.error):
                continue

    def _row(self, page: bytes, place: int, kind: int) -> Row:
        if kind == INDEX_INTERIOR:
            place += 4
        length, place = _varint(page, place)
        rowid = None
        if kind == TABLE_LEAF:
            rowid, place = _varint(page, place)
        return Row(rowid, _values(self._payload(page, place, length, kind)))

    def _payload(self, page: bytes, place: int, length: int, kind: int) -> bytes:
        if not 0 < length <= PAYLOAD_MAX:
            raise _Senseless
        u = self.size  # ours reserve nothing of a page, whatever a damaged header says
        most = u - 35 if kind == TABLE_LEAF else (u - 12) * 64 // 255 - 23
        least = (u - 12) * 32 // 255 - 23
        here = length
        if length > most:
            here = least + (length - least) % (u - 4)
            here = here if here <= most else least
        parts = [page[place : place + here]]
        missing = length - len(parts[0])
        follow = int.from_bytes(page[place + here : place + here + 4], "big") if missing else 0
        seen = 0
        while missing > 0:
            part = self.page(follow) if 1 < follow <= self.count else b""
            seen += 1
            if len(part) < self.size or seen > self.count:
                raise _Senseless
            parts.append(part[4 : 4 + min(missing, u - 4)])
            missing -= len(parts[-1])
            follow = int.from_bytes(part[:4], "big")
        if follow:
            raise _Senseless  # the last page of a row leads to no other: this one is something else
        return b"".join(parts)


def log_is_whole(log: Path, counted: int) -> bool:
    """Tell whether nothing that was synced stands in the log behind the first `counted` frames, which SQLite counts.

    A transaction is written behind one that was synced, and goes on from its sums. Nothing goes on from what a power loss has
    cut off or a failed sync has left. Raises: OSError
    """
    with log.open("rb") as file:
        head, octets = file.read(HEAD), os.fstat(file.fileno()).st_size
        if octets <= HEAD:
            return True  # its header is synced before anything stands behind it
        magic, _, size, _, _, _, *said = struct.unpack(">8I", head)
        order = ">" if magic & 1 else "<"
        if magic not in MAGIC or _sums(head[:24], (0, 0), order) != tuple(said):
            return False
        begun: tuple[int, int] | None = (said[0], said[1]) if not counted else None
        end: tuple[int, int] | None = None
        for n in range(counted, (octets - HEAD) // (FRAME + size)):
            frame = os.pread(file.fileno(), FRAME + size, HEAD + n * (FRAME + size))
            after, *_, first, second = struct.unpack(">5I", frame[4:FRAME])
            before = end or begun
            ours = frame[8:16] == head[16:24]
            goes_on = before and ours and _sums(frame[FRAME:], _sums(frame[:8], before, order), order) == (first, second)
            if goes_on and (end or after):
                return end is None  # whole from its first frame on, yet not counted: it is done with, and starts anew
            begun = (first, second) if goes_on else None
            end = (first, second) if ours and after else None
    return True


def _varint(octets: bytes, place: int) -> tuple[int, int]:
    value = 0
    for n in range(9):
        octet = octets[place + n]
        if n == 8:
            value = value << 8 | octet
            break
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            break
    return value - (1 << 64) if value >> 63 else value, place + n + 1


def _values(record: bytes) -> tuple[Value, ...]:
    end, place = _varint(record, 0)
    if not 0 < end <= len(record):
        raise _Senseless
    kinds = []
    while place < end:
        kind, place = _varint(record, place)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        length = _length(kind)
        octets = record[place : place + length]
        if len(octets) < length:
            raise _Senseless
        place += length
        values.append(_value(kind, octets))
    return tuple(values)


def _length(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    lengths = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
    if not 0 <= kind < len(lengths):
        raise _Senseless
    return lengths[kind]


def _value(kind: int, octets: bytes) -> Value:
    if kind == 0:
        return None
    if kind <= 6:
        return int.from_bytes(octets, "big", signed=True)
    if kind == 7:
        found: float = struct.unpack(">d", octets)[0]
        return found
    if kind <= 9:
        return kind - 8
    return octets.decode() if kind & 1 else octets


def _sums(octets: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = before
    words = struct.unpack(f"{order}{len(octets) // 4}I", octets)
    for n in range(0, len(words), 2):
        first = first + words[n] + second & 0xFFFFFFFF
        second = second + words[n + 1] + first & 0xFFFFFFFF
    return first, second
