"""The desk over a spool: what operators see and do, in the daemon and beside a stopped one alike.

Implements `seams.Desk`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from sesrelay.control import documents, envelopes
from sesrelay.mail.dates import rfc3339
from sesrelay.mail.delivery import LaneKey, Priority, State
from sesrelay.seams import Clock, Document, Filter, Pause, SpoolAdmin, Submission, Told, Unfit, Verb

PAGE = 1000  # deliveries read at once: no read transaction is longer


def no_pauses() -> Iterable[Pause]:
    """Return nothing: pauses live in the daemon's memory, and there is no daemon."""
    return ()


def no_folder() -> Document:
    """Return what the summary says where no folder of undeliverable reports is known."""
    return {"folder": None, "messages": 0}


async def nobody_to_tell(verb: Verb) -> None:
    """Do nothing: there is no engine to wake."""


async def nothing_to_move() -> None:
    """Do nothing: the next daemon places anew what it claims."""


def never_kept_back(route: str, lane: LaneKey, priority: Priority) -> None:
    """Return nothing: what is paused, and what a limit has counted, is the daemon's to know, and there is no daemon."""


async def nobody_to_place(submission: Submission) -> bool:
    """Refuse: nothing here knows where mail would go."""
    raise Unfit("there is no queue here that could take it")


@dataclass(frozen=True, slots=True)
class SpoolDesk:
    """`changed` is called after a change, so that an engine takes notice. `kept_back` tells why mail waits now, for a pause
    or a limit of ours, and until when; `moved` is called after mail was given another way out; `importer` places and stores a
    message; `undeliverable` looks into the folder of reports that could not be sent; `missing`: see `seams.Desk`.
    """

    spool: SpoolAdmin
    clock: Clock
    pauses: Callable[[], Iterable[Pause]] = no_pauses
    changed: Callable[[Verb], Awaitable[None]] = nobody_to_tell
    kept_back: Callable[[str, LaneKey, Priority], tuple[str, float] | None] = never_kept_back
    moved: Callable[[], Awaitable[None]] = nothing_to_move
    importer: Callable[[Submission], Awaitable[bool]] = nobody_to_place
    undeliverable: Callable[[], Document] = no_folder
    missing: str | None = None

    async def summary(self) -> Document:
        stats, kept = await self.spool.stats(), await asyncio.to_thread(self.undeliverable)
        return documents.summary(stats, self.pauses(), self.spool.parked(), kept, self.clock.wall())

    async def listing(self, filter: Filter) -> AsyncIterator[Document]:
        after = None
        while page := await self.spool.list(filter, self.clock.wall(), after, PAGE):
            for record in page:
                yield self._explained(documents.delivery(record))
            after = page[-1].delivery.id

    async def show(self, queue_id: str) -> Document | None:
        record = await self.spool.show(queue_id)
        return None if record is None else self._all_explained(documents.message(record))

    async def trace(self, any_id: str) -> list[Document]:
        found = [await self.spool.show(queue_id) for queue_id in await self.spool.find(any_id)]
        return [self._all_explained(documents.traced(record)) for record in found if record is not None]

    async def change(self, verb: Verb, filter: Filter, via: str | None = None, told: Told | None = None) -> int:
        count = await self.spool.change(verb, filter, self.clock.wall(), via, told)
        if count and via is not None:
            await self.moved()  # first: where it waited, the next thing would be to try it there once more
        if count:
            await self.changed(verb)
        return count

    async def park(self, filter: Filter, told: Told | None = None) -> int:
        await self.spool.park(filter, self.clock.wall())  # first: what comes meanwhile is then held by one or the other
        return await self.change("hold", filter, told=told)

    async def unpark(self, filter: Filter, told: Told | None = None) -> int | None:
        return await self.change("release", filter, told=told) if await self.spool.unpark(filter) else None

    async def recent(self, limit: int) -> list[Document]:
        made = []
        for record in await self.spool.recent(limit):
            made.append(self._all_explained(documents.recent(record)))
            await asyncio.sleep(0)  # each may have a thousand recipients, and mail waits meanwhile
        return made

    async def export(self, queue_id: str) -> tuple[Document, bytes | None] | None:
        record = await self.spool.show(queue_id)
        if record is None:
            return None
        ended = all(each.delivery.state.final for each in record.deliveries)
        return envelopes.document(record), None if ended else await self.spool.content(queue_id)

    async def take(self, document: Document, content: bytes) -> bool:
        return await self.importer(envelopes.submission(document, content, self.clock.wall()))

    def _all_explained(self, message: Document) -> Document:
        for delivery in message["deliveries"]:
            self._explained(delivery)
        return message

    def _explained(self, delivery: Document) -> Document:
        """Put in why a delivery waits that is due: the store does not write it on each of a hundred thousand."""
        if delivery["state"] == State.QUEUED.value:
            lane = LaneKey(delivery["transport"] or "", delivery["nexthop"] or "")
            found = self.kept_back(delivery["route"], lane, Priority[delivery["priority"].upper()])
            until = rfc3339(found[1]) if found else None
            if found and until is not None and (delivery["next_attempt"] or "") < until:
                delivery["next_attempt"] = until
                if delivery["reason"] != "in_doubt":  # which tells more: no other way out may have it
                    delivery["reason"] = found[0]
        return delivery
