"""Whole numbers that the engine keeps in the store: what the caps of routes count, and by which configuration mail was placed.

Invariant: they hold up no mail. What could not be stored is stored with what is counted next.
"""

from dataclasses import dataclass, field

from sesrelay.delivery.gates import KEPT_HOURS, Gates
from sesrelay.delivery.tasks import Tasks
from sesrelay.policy.limits import HOUR, SLOT
from sesrelay.seams import Clock, Observer, Spool, SpoolError

KEPT_SLOTS = 300  # of five minutes: a day and an hour
PLACED = "placed: "
"""In the store, beside what sites sent: by which configuration all that is queued was placed."""


@dataclass(slots=True)
class Counts:
    """`placed`: the `placing.shape` of the configuration that placed what the store has; None: of no one, or nobody knows."""

    spool: Spool
    clock: Clock
    observer: Observer
    gates: Gates
    tasks: Tasks
    placed: int | None = field(default=None, init=False)
    _saving: bool = field(default=False, init=False)

    async def restore(self) -> None:
        """Take up what the store has. Raises: SpoolError"""
        counts = await self.spool.sent_counts()
        self.placed = next((n for name, _, n in counts if name == PLACED), None)
        self.gates.restore(each for each in counts if each[0] != PLACED)

    async def note_placed(self, shape: int) -> None:
        """Store by which configuration all that is queued is placed now. Raises: SpoolError"""
        await self.spool.count_sent([(PLACED, 0, shape)], 0)

    def save(self) -> None:
        """Store what was counted since it was stored last; what comes meanwhile goes in one piece when that is done."""
        if not self._saving:
            self._saving = True
            self.tasks.spawn(self._save())

    async def _save(self) -> None:
        try:
            if hours := self.gates.unsaved_hours():
                await self.spool.count_sent(hours, int(self.clock.wall() // HOUR) - KEPT_HOURS)
                self.gates.saved_hours(hours)
            while counts := self.gates.unsaved():
                await self.spool.count_sent(counts, int(self.clock.wall() // SLOT) - KEPT_SLOTS)
                self.gates.saved(counts)
        except SpoolError as error:
            self.observer.trouble("the counters for daily_cap and hourly_cap cannot be stored", error)
        finally:
            self._saving = False
