"""The spool on SQLite: Spool and SpoolAdmin over one writer thread, two readers and a folder of large bodies.

Invariant: nothing here holds SQL or decides; it carries calls to the right thread and pages through what is long.
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import apsw

from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Stream
from sesrelay.mail.filed import Filed, Scratch
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import (
    Claim,
    Clock,
    ContentGone,
    DeliveryRecord,
    Filter,
    MessageRecord,
    NoSpace,
    Settlement,
    SpoolError,
    Stats,
    Submission,
    Told,
    Verb,
)
from sesrelay.spool import changing, desk, flow, folding, query, selecting, standing
from sesrelay.spool.bulk import Accept, Open, Settle
from sesrelay.spool.errors import StoreRefused
from sesrelay.spool.files import THRESHOLD, Bodies, Trouble
from sesrelay.spool.lock import StateLock
from sesrelay.spool.matching import Match, restricts
from sesrelay.spool.opening import connect, open_store
from sesrelay.spool.reader import Reader
from sesrelay.spool.reading import PAGE, START
from sesrelay.spool.records import STATES, Key, Packed, id_of, key_of, number_of, pack
from sesrelay.spool.standing import Parking, StandingHolds
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer import Writer, as_spool_error

T = TypeVar("T")

DATABASE = "queue.db"
BODIES = "bodies"
ROOM_AGE = 1.0  # seconds that a look at the free space serves
CHANGE_PAGE = 500  # rows in one transaction of a change: what others wait for
CHANGE_FOUND = 10_000  # rows that are found at once to be changed
BODY = "SELECT body FROM content WHERE message = ?"
WHERE_BODY = "SELECT EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND state < 3) FROM message WHERE id = ?1 AND stored = 1"


class SqliteSpool(Parking):
    """Implements `seams.Spool` and `seams.SpoolAdmin`. Made by `open`, for one event loop after the other."""

    def __init__(
        self, state_dir: Path, writer: Writer, readers: tuple[Reader, Reader], bodies: Bodies, pool: ThreadPoolExecutor,
        clock: Clock, min_free_disk: int, lock: StateLock | None, holds: StandingHolds,
    ) -> None:  # fmt: skip
        self._state_dir = state_dir
        self._writer = writer
        self._engine_reader, self._desk_reader = readers
        self._bodies = bodies
        self._pool = pool
        self._clock = clock
        self._min_free_disk = min_free_disk
        self._own_lock = lock
        self.standing = holds
        self._room_seen: float | None = None
        self._room = 0

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        *,
        clock: Clock,
        on_trouble: Trouble,
        min_free_disk: int = 0,
        lock: StateLock | None = None,
        vfs: str | None = None,
    ) -> SqliteSpool:
        """Open the store in `state_dir`, new where there is none. Units: `min_free_disk` octets.

        `lock`: the hold on `state_dir` where the caller has it already; else it is taken here and released by `close`.
        `on_trouble` is called on other threads too. Raises: LockHeld, StoreRefused.
        """
        own = None if lock is not None else StateLock.acquire(state_dir)
        try:
            return await asyncio.to_thread(cls._open, state_dir, clock, on_trouble, min_free_disk, own, vfs)
        except BaseException:
            if own is not None:
                own.release()
            raise

    @classmethod
    def _open(
        cls, state_dir: Path, clock: Clock, on_trouble: Trouble, min_free_disk: int, own: StateLock | None, vfs: str | None
    ) -> SqliteSpool:
        path = state_dir / DATABASE
        bodies = Bodies(state_dir / BODIES)
        db = open_store(path, vfs=vfs)
        holds = StandingHolds()
        try:
            holds.load(query.rows(db.cursor(), standing.SELECT))
            bodies.prepare()
            bodies.sweep(lambda number: bool((db.execute(WHERE_BODY, (number,)).fetchone() or (0,))[0]))
            readers = (
                Reader("spool-content", lambda: connect(path, write=False, vfs=vfs)),
                Reader("spool-desk", lambda: connect(path, write=False, vfs=vfs)),
            )
        except (OSError, apsw.Error) as error:
            db.close(True)
            raise StoreRefused(f"{state_dir} cannot be used: {error}") from error
        pool = ThreadPoolExecutor(4, thread_name_prefix="spool-bodies")

        def remove(numbers: list[int]) -> None:
            for number in numbers:
                pool.submit(bodies.drop, queue_id.encode(number), on_trouble)

        writer = Writer(
            db, reopen=lambda: open_store(path, vfs=vfs), on_ended=remove, on_trouble=on_trouble, monotonic=clock.monotonic
        )
        return cls(state_dir, writer, readers, bodies, pool, clock, min_free_disk, own, holds)

    # --- Spool -----------------------------------------------------------------------------------------------

    async def accept(self, submission: Submission, *, claimed: bool = False) -> None:
        """See `Spool.accept`. Raises: NoSpace where less than `min_free_disk` would stay free."""
        self.check_room(len(submission.content))
        if len(submission.content) <= THRESHOLD:
            packed = pack(submission, in_file=False)
            await self._writer.perform(Accept(packed, claimed), len(submission.content))
        else:
            await self._with_files((submission,), lambda tx, packed: flow.accept(tx, packed[0], claimed))

    async def fold(self, folded: Submission, compose: Callable[[int], Submission]) -> int:
        self.check_room(THRESHOLD)  # a digest is no larger
        packed, digest = pack(folded, in_file=False, ended=True), number_of(compose(1).message.id)
        return await self._writer.submit(lambda tx: folding.fold(tx, packed, compose, digest))

    async def claim(self, lane: LaneKey, limit: int, now: float, *, passed_over: Collection[Stream] = (), after: str = "") -> Claim:
        future = self._writer.submit(lambda tx: flow.claim(tx, lane, limit, now, passed_over, after))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Nobody takes what is handed out: it must not stay claimed for good.
            future.add_done_callback(self._take_back)
            raise

    def _take_back(self, future: asyncio.Future[Claim]) -> None:
        if not future.cancelled() and future.exception() is None:
            keys = [key_of(each.id) for each in future.result().deliveries]
            self._writer.submit(lambda tx: flow.unclaim(tx, keys))

    async def unclaim(self, ids: Sequence[DeliveryId]) -> None:
        keys = [key_of(each) for each in ids]
        await self._writer.submit(lambda tx: flow.unclaim(tx, keys))

    async def open_attempt(self, ids: Sequence[DeliveryId], retry_at: float, lane: LaneKey | None = None) -> frozenset[DeliveryId]:
        keys = {key_of(each): each for each in ids}
        return await self._writer.perform(Open(keys, retry_at, lane))

    async def settle(self, settlement: Settlement) -> Mapping[DeliveryId, float]:
        verdicts = {key_of(each): verdict for each, verdict in settlement.verdicts.items()}
        events, now, attempted = settlement.events, self._clock.wall(), settlement.attempted
        if events and len({key[0] for key in verdicts}) != 1:
            raise SpoolError("the events of a settlement belong to one message")
        submitted = [self.standing.applied(report) for report in settlement.reports]
        if any(len(report.content) > THRESHOLD for report in submitted):
            return await self._with_files(submitted, lambda tx, packed: flow.settle(tx, verdicts, events, packed, now, attempted))
        reports = [pack(report, in_file=False) for report in submitted]
        if attempted:
            return await self._writer.perform(Settle(verdicts, events, reports, now), patient=True)
        return await self._writer.submit(lambda tx: flow.settle(tx, verdicts, events, reports, now, attempted), patient=True)

    async def postpone(self, ids: Sequence[DeliveryId], due: float, reason: str | None) -> None:
        keys = [key_of(each) for each in ids]
        await self._writer.submit(lambda tx: flow.postpone(tx, keys, due, reason))

    async def rekey(
        self, place: Callable[[Delivery], Placement], after: DeliveryId | None, limit: int, *, hasten: frozenset[str] = frozenset(),
        now: float = 0.0, chosen: bool = False,
    ) -> DeliveryId | None:  # fmt: skip
        start = _start(after)
        last = await self._writer.submit(lambda tx: flow.rekey(tx, place, start, limit, hasten, now, chosen))
        return None if last is None else id_of(last)

    async def set_back(self, seconds: float, now: float) -> None:
        after: Key | None = START
        while after is not None:
            start = after
            after = await self._writer.submit(partial(flow.set_back, seconds=seconds, now=now, after=start, limit=CHANGE_PAGE))

    async def content(self, message: str) -> Canonical:
        number = number_of(message)

        def read(cursor: apsw.Cursor) -> bytes | None:
            row = cursor.execute(BODY, (number,)).fetchone()
            if row is not None:
                return bytes(row[0])
            row = cursor.execute(WHERE_BODY, (number,)).fetchone()
            return self._bodies.read(message) if row is not None and row[0] else None

        try:
            content = await self._engine_reader.run(read)
        except SpoolError as error:
            if isinstance(error.__cause__, FileNotFoundError | apsw.CorruptError):
                raise ContentGone(f"{message}: the content is lost: {error.__cause__}") from error
            raise
        if content is None:
            raise ContentGone(f"{message}: the content is gone")
        return Canonical(content)  # it was when it came

    async def filed(self, message: str) -> Filed | None:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._bodies.filed, message)

    def scratch(self) -> Scratch:
        return self._bodies.scratch(self._min_free_disk)

    async def open_attempts(self, limit: int) -> Sequence[Delivery]:
        return await self._writer.submit(lambda tx: flow.in_flight(tx, limit))

    async def lanes(self) -> Mapping[LaneKey, float]:
        found: dict[LaneKey, float] = {}
        after: tuple[str, str] | None = None
        while True:
            page, after = await self._writer.submit(partial(flow.lanes, after=after))
            found.update(page)
            if after is None:
                return found

    async def aged(self, accepted_before: float, after: DeliveryId | None, limit: int) -> Sequence[Delivery]:
        found: builtins.list[Delivery] = []
        key: Key | None = _start(after)
        while key is not None and len(found) < limit:
            start, page = key, min(limit - len(found), PAGE)
            more, key = await self._writer.submit(partial(flow.aged, accepted_before=accepted_before, after=start, limit=page))
            found += more
        return found

    async def purge(self, finished_before: float, limit: int) -> int:
        gone = 0
        after: int | None = -1
        while after is not None and gone < limit:
            start, wanted = after, limit - gone
            more, after = await self._writer.submit(partial(flow.purge, finished_before=finished_before, after=start, limit=wanted))
            gone += more
        return gone

    async def count_sent(self, counts: Sequence[tuple[str, int, int]], forget_before: int) -> None:
        await self._writer.submit(lambda tx: flow.count_sent(tx, counts, forget_before))

    async def sent_counts(self) -> Sequence[tuple[str, int, int]]:
        return await self._writer.submit(lambda tx: cast("list[tuple[str, int, int]]", query.rows(tx.cursor, flow.SENT)))

    async def close(self) -> None:
        """See `Spool.close`. The last connection to close is the one that can write the log home."""
        await self._engine_reader.close()
        await self._desk_reader.close()
        await self._writer.close()
        await asyncio.to_thread(self._pool.shutdown)
        if self._own_lock is not None:
            self._own_lock.release()

    async def ping(self) -> None:
        """Return when the writer has answered: it lives, and the store can be locked for writing. Raises: SpoolError"""
        await self._writer.submit(lambda tx: None)

    # --- SpoolAdmin ------------------------------------------------------------------------------------------

    async def list(self, filter: Filter, now: float, after: DeliveryId | None, limit: int) -> Sequence[DeliveryRecord]:
        match = Match(filter, now)
        found: builtins.list[DeliveryRecord] = []
        key: Key | None = _start(after)
        while key is not None and len(found) < limit:
            # A page as large as what is wanted: whatever matches on it is wanted too.
            look = partial(desk.listing, match=match, transports=self._transports(), after=key, limit=min(limit - len(found), PAGE))
            more, key = await self._desk_reader.run(look)
            found += more
        return found

    async def show(self, queue_id: str) -> MessageRecord | None:
        try:
            number = number_of(queue_id)
        except SpoolError:
            return None
        return await self._desk_reader.run(lambda cursor: desk.show(cursor, number))

    async def find(self, any_id: str) -> Sequence[str]:
        return await self._desk_reader.run(lambda cursor: desk.find(cursor, any_id))

    async def recent(self, limit: int) -> Sequence[MessageRecord]:
        return await self._desk_reader.run(lambda cursor: desk.recent(cursor, limit))

    async def change(self, verb: Verb, filter: Filter, now: float, via: str | None = None, told: Told | None = None) -> int:
        if not restricts(filter):
            return 0
        match = Match(filter, now)
        looked = changed = 0
        key: Key | None = START
        while key is not None:
            # Looked for where nobody waits for it; what has become something else meanwhile is left out by the writer.
            look = partial(selecting.page, match=match, transports=self._transports(), after=key, limit=CHANGE_FOUND)
            page = await self._desk_reader.run(look)
            key, looked = page.after, looked + page.looked
            for first in range(0, len(page.keys), CHANGE_PAGE):
                some = page.keys[first : first + CHANGE_PAGE]
                changed += await self._writer.submit(partial(changing.change, verb=verb, match=match, keys=some, now=now, via=via))
            if told is not None:
                told(looked, changed)
        return changed

    async def keep(self, statement: str, bindings: query.Row) -> None:
        await self._writer.submit(lambda tx: query.rows(tx.cursor, statement, bindings))

    async def stats(self) -> Stats:
        tally = self._writer.tally
        counts, messages, octets = tally.counts, tally.messages, tally.octets
        by_transport = await self._desk_reader.run(lambda cursor: desk.oldest(cursor, counts))
        return Stats(
            messages, octets, min(by_transport.values(), default=None),
            {(transport, STATES[state]): n for (transport, state), n in counts.items()}, by_transport,
        )  # fmt: skip

    # --- inside ----------------------------------------------------------------------------------------------

    def _transports(self) -> builtins.list[str]:
        return sorted({transport for transport, _ in self._writer.tally.counts})

    def check_room(self, octets: int = 0) -> None:
        """See whether `octets` more may be stored. Raises: NoSpace"""
        if not self._min_free_disk:
            return
        now = self._clock.monotonic()
        if self._room_seen is None or now - self._room_seen >= ROOM_AGE or now < self._room_seen:
            try:
                disk = os.statvfs(self._state_dir)
            except OSError as error:
                raise as_spool_error(error) from error
            self._room, self._room_seen = disk.f_bavail * disk.f_frsize, now
        if self._room - octets < self._min_free_disk:
            raise NoSpace(f"less than {self._min_free_disk} bytes would stay free in {self._state_dir}")
        self._room -= octets

    async def _with_files(self, submissions: Sequence[Submission], do: Callable[[Transaction, builtins.list[Packed]], T]) -> T:
        """Write large contents to files, then run `do` on the writer; a caller that goes away does not stop it half-way."""
        return await asyncio.shield(asyncio.ensure_future(self._store_with_files(submissions, do)))

    async def _store_with_files(
        self, submissions: Sequence[Submission], do: Callable[[Transaction, builtins.list[Packed]], T]
    ) -> T:
        loop = asyncio.get_running_loop()
        packed = [pack(each, in_file=len(each.content) > THRESHOLD) for each in submissions]
        written: builtins.list[Packed] = []
        try:
            for each, rows in zip(submissions, packed, strict=True):
                if rows.message[5]:
                    await loop.run_in_executor(self._pool, self._bodies.write, each.message.id, each.content)
                    written.append(rows)
            return await self._writer.submit(lambda tx: do(tx, packed))
        except FileExistsError as error:
            await self._drop(written)
            raise SpoolError("the queue id is taken") from error
        except (OSError, RuntimeError, SpoolError) as error:
            await self._drop(written)
            raise as_spool_error(error) from error

    async def _drop(self, written: Sequence[Packed]) -> None:
        """Remove files whose messages were not stored; what cannot be removed now is swept at the next start."""
        loop = asyncio.get_running_loop()
        for rows in written:
            try:
                known = await self._engine_reader.run(partial(query.row, statement=WHERE_BODY, bindings=(rows.number,)))
                if known is None:
                    await loop.run_in_executor(self._pool, self._bodies.remove, queue_id.encode(rows.number))
            except (OSError, RuntimeError, SpoolError):
                continue


def _start(after: DeliveryId | None) -> Key:
    return START if after is None else key_of(after)
