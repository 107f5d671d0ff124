"""The spool on SQLite: Spool and SpoolAdmin over one writer, two readers and a folder of large bodies.

Invariant: nothing here holds SQL or decides; it carries calls to the writer and the readers, and pages through what is long.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import apsw

from sesrelay.mail import queue_id
from sesrelay.mail.delivery import Delivery, DeliveryId, LaneKey, Placement, Stream
from sesrelay.mail.filed import Filed, Scratch
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import (
    Claim,
    Clock,
    DeliveryRecord,
    Filter,
    MessageRecord,
    NoSpace,
    Opened,
    Settlement,
    SpoolError,
    Stats,
    Submission,
    Told,
    Verb,
)
from sesrelay.spool import changing, desk, flow, query, selecting, standing, transaction, upkeep
from sesrelay.spool.bulk import Accept, Open, Settle
from sesrelay.spool.contents import WHERE_BODY, Contents
from sesrelay.spool.digests import Digests
from sesrelay.spool.errors import StoreRefused, as_spool_error
from sesrelay.spool.files import THRESHOLD, Bodies, Trouble
from sesrelay.spool.lock import StateLock
from sesrelay.spool.matching import Match, restricts
from sesrelay.spool.oldest import Oldest
from sesrelay.spool.opening import connect, open_store
from sesrelay.spool.reader import Reader
from sesrelay.spool.reading import PAGE, START
from sesrelay.spool.records import STATES, Key, event_rows, id_of, key_of, number_of, pack, verdict_row
from sesrelay.spool.standing import Parking, StandingHolds
from sesrelay.spool.writer.committing import Committer
from sesrelay.spool.writer.process import ProcessWriter
from sesrelay.spool.writer.promise import Writer
from sesrelay.spool.writer.thread import ThreadWriter

DATABASE = "queue.db"
BODIES = "bodies"
ROOM_AGE = 1.0  # seconds that a look at the free space serves
CHANGE_PAGE = 500  # rows in one transaction of a change: what others wait for
CHANGE_FOUND = 10_000  # rows that are found at once to be changed


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
        self._contents = Contents(bodies, self._engine_reader, writer, pool)
        self._digests = Digests(writer)
        self._oldest = Oldest(self._desk_reader, clock.monotonic)
        self._placing = asyncio.Lock()
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
        apart: bool = False,
    ) -> SqliteSpool:
        """Open the store in `state_dir`, new where there is none. Units: `min_free_disk` octets.

        `lock`: the hold on `state_dir` where the caller has it already; else it is taken here and released by `close`.
        `apart`: the writer is a process of its own, and the spool serves this event loop alone; see `writer.process`.
        `on_trouble` is called on other threads too. Raises: LockHeld, StoreRefused.
        """
        own = None if lock is not None else StateLock.acquire(state_dir)
        held = lock or own
        assert held is not None
        path, bodies = state_dir / DATABASE, Bodies(state_dir / BODIES)
        pool = ThreadPoolExecutor(4, thread_name_prefix="spool-bodies")

        def remove(numbers: builtins.list[int]) -> None:
            for number in numbers:
                pool.submit(bodies.drop, queue_id.encode(number), on_trouble)

        try:
            writer: Writer
            if apart:
                writer = await ProcessWriter.start(path, held, on_ended=remove, on_trouble=on_trouble)
            else:
                reopen = partial(open_store, path, vfs=vfs)
                db = await asyncio.to_thread(reopen)
                committer = Committer(db, reopen=reopen, on_ended=remove, on_trouble=on_trouble)
                writer = ThreadWriter(committer, clock.monotonic)
            try:
                holds, readers = await asyncio.to_thread(_furnish, bodies, partial(connect, path, write=False, vfs=vfs))
            except BaseException as error:
                await writer.close()
                if isinstance(error, OSError | apsw.Error):
                    raise StoreRefused(f"{state_dir} cannot be used: {error}") from error
                raise
        except BaseException:
            if own is not None:
                own.release()
            raise
        return cls(state_dir, writer, readers, bodies, pool, clock, min_free_disk, own, holds)

    # --- Spool -----------------------------------------------------------------------------------------------

    async def accept(self, submission: Submission, *, claimed: bool = False) -> None:
        """See `Spool.accept`. Raises: NoSpace where less than `min_free_disk` would stay free."""
        self.check_room(len(submission.content))
        if len(submission.content) <= THRESHOLD:
            packed = pack(submission, in_file=False)
            await self._writer.perform(Accept(*packed, claimed), len(submission.content))
        else:
            await self._contents.store((submission,), lambda packed: partial(flow.accept, packed=packed[0], claimed=claimed))

    async def fold(self, folded: Submission, compose: Callable[[int], Submission]) -> int:
        self.check_room(THRESHOLD)  # a digest is no larger
        packed, digest = pack(folded, in_file=False, ended=True), number_of(compose(1).message.id)
        return await self._digests.fold(packed, digest, lambda number: pack(compose(number), in_file=False))

    async def claim(self, lane: LaneKey, limit: int, now: float, *, passed_over: Collection[Stream] = (), after: str = "") -> Claim:
        find = partial(flow.claim, lane=lane, limit=limit, now=now, passed_over=passed_over, after=after)
        future = self._writer.submit(find)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Nobody takes what is handed out: it must not stay claimed for good.
            future.add_done_callback(self._take_back)
            raise

    def _take_back(self, future: asyncio.Future[Claim]) -> None:
        if not future.cancelled() and future.exception() is None:
            keys = [key_of(each.id) for each in future.result().deliveries]
            with contextlib.suppress(SpoolError):  # closed meanwhile: no claim outlives that
                self._writer.submit(partial(flow.unclaim, keys=keys))

    async def unclaim(self, ids: Sequence[DeliveryId]) -> None:
        keys = [key_of(each) for each in ids]
        await self._writer.submit(partial(flow.unclaim, keys=keys))

    async def open_attempt(
        self, ids: Sequence[DeliveryId], retry_at: float, lane: LaneKey | None = None, *, read: int | None = None
    ) -> Opened:
        keys = {key_of(each): each for each in ids}
        by = None if lane is None else (lane.transport, lane.nexthop)
        opened, content = await self._writer.perform(Open(list(keys), retry_at, by, read))
        return Opened(frozenset(keys[key] for key in opened), None if content is None else Canonical(content))

    async def settle(self, settlement: Settlement, *, patient: bool = False) -> Mapping[DeliveryId, float]:
        verdicts = {key_of(each): verdict_row(verdict) for each, verdict in settlement.verdicts.items()}
        events, now, attempted = event_rows(settlement.events), self._clock.wall(), settlement.attempted
        if events and len(verdicts) != 1 and len({key[0] for key in verdicts}) != 1:
            raise SpoolError("the events of a settlement belong to one message")
        submitted = [self.standing.applied(report) for report in settlement.reports]
        if any(len(report.content) > THRESHOLD for report in submitted):
            due = await self._contents.store(
                submitted,
                lambda packed: partial(flow.settle, verdicts=verdicts, events=events, reports=packed, now=now, attempted=attempted),
            )
        else:
            reports = [pack(report, in_file=False) for report in submitted]
            if attempted:
                due = await self._writer.perform(Settle(verdicts, events, reports, now), patient=patient)
            else:
                end = partial(flow.settle, verdicts=verdicts, events=events, reports=reports, now=now, attempted=False)
                due = await self._writer.submit(end, patient=patient)
        return {id_of(key): moment for key, moment in due.items()}

    async def postpone(self, ids: Sequence[DeliveryId], due: float, reason: str | None) -> None:
        keys = [key_of(each) for each in ids]
        await self._writer.submit(partial(flow.postpone, keys=keys, due=due, reason=reason))

    async def rekey(
        self, place: Callable[[Delivery], Placement], after: DeliveryId | None, limit: int, *,
        hasten: Callable[[Delivery], bool] | None = None, now: float = 0.0, chosen: bool = False,
    ) -> DeliveryId | None:  # fmt: skip
        look = partial(upkeep.waiting, after=_start(after), limit=limit, chosen=chosen)
        async with self._placing:  # who asks later places last
            placed = False
            while not placed:  # what moves between being found and being moved is found anew
                found, last = await self._writer.submit(look)
                moves = []
                for each in found:
                    old, new = each.placement, place(each)
                    then = min(each.due, now) if hasten is not None and hasten(each) else each.due
                    if new != old or then != each.due:
                        moves.append(upkeep.Move(key_of(each.id), old, each.due, new, then))
                placed = not moves or await self._writer.submit(partial(upkeep.place, moves=moves))
        return None if last is None else id_of(last)

    async def set_back(self, seconds: float, now: float) -> None:
        after: Key | None = START
        while after is not None:
            start = after
            after = await self._writer.submit(partial(upkeep.set_back, seconds=seconds, now=now, after=start, limit=CHANGE_PAGE))

    async def content(self, message: str) -> Canonical:
        return await self._contents.read(message)

    async def filed(self, message: str) -> Filed | None:
        return await self._contents.filed(message)

    def scratch(self) -> Scratch:
        return self._bodies.scratch(self._min_free_disk)

    async def open_attempts(self, limit: int) -> Sequence[Delivery]:
        return await self._writer.submit(partial(upkeep.in_flight, limit=limit))

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
            more, key = await self._writer.submit(partial(upkeep.aged, accepted_before=accepted_before, after=start, limit=page))
            found += more
        return found

    async def purge(self, finished_before: float, now: float, limit: int) -> int:
        gone = 0
        for first, end in queue_id.accepted_before(finished_before, now):
            after: int | None = first
            while after is not None and gone < limit:
                page = partial(upkeep.purge, finished_before=finished_before, after=after, end=end, limit=limit - gone)
                more, after = await self._writer.submit(page)
                gone += more
        return gone

    async def count_sent(self, counts: Sequence[tuple[str, int, int]], forget_before: int) -> None:
        await self._writer.submit(partial(upkeep.count_sent, counts=counts, forget_before=forget_before))

    async def sent_counts(self) -> Sequence[tuple[str, int, int]]:
        return await self._writer.submit(upkeep.sent)

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
        await self._writer.submit(transaction.nothing)

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

    async def greetings(self, message_id: str, listener: str, beginning: str) -> Sequence[str]:
        return await self._desk_reader.run(lambda cursor: desk.greetings(cursor, message_id, listener, beginning))

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
        await self._writer.submit(partial(transaction.execute, statement=statement, bindings=bindings))

    async def stats(self) -> Stats:
        counts, messages, octets = self._writer.counts()
        by_transport = await self._oldest.by_transport(counts, self._clock.wall())
        return Stats(
            messages, octets, min(by_transport.values(), default=None),
            {(transport, STATES[state]): n for (transport, state), n in counts.items()}, by_transport,
        )  # fmt: skip

    # --- inside ----------------------------------------------------------------------------------------------

    def _transports(self) -> builtins.list[str]:
        return sorted({transport for transport, _ in self._writer.counts().deliveries})

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


def _start(after: DeliveryId | None) -> Key:
    return START if after is None else key_of(after)


def _furnish(bodies: Bodies, look: Callable[[], apsw.Connection]) -> tuple[StandingHolds, tuple[Reader, Reader]]:
    """Make what is beside the writer, and sweep the files that no message has. Raises: OSError, apsw.Error"""
    holds, db = StandingHolds(), look()
    try:
        holds.load(query.rows(db.cursor(), standing.SELECT))
        bodies.prepare()
        bodies.sweep(lambda number: bool((db.execute(WHERE_BODY, (number,)).fetchone() or (0,))[0]))
        return holds, (Reader("spool-content", look), Reader("spool-desk", look))
    finally:
        db.close(True)
