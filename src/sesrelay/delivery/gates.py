"""The limits that a route sets itself, at work: one gate a route that has any, between a lane and its attempts.

What waits at a gate costs no attempt and holds up no other route. What caps count is kept in the store: written as the
attempts begin, without holding them up, so that a crash forgets what one commit holds at most.

Invariant: a route without limits has no gate, and costs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.delivery import Batch, LaneKey, Stream
from sesrelay.mail.outcome import PauseReason
from sesrelay.policy.limits import HOUR, SLOT, Allowance, RouteLimits, Sent, allowance, slot_of
from sesrelay.policy.pace import Pace
from sesrelay.policy.routing import RouteRule
from sesrelay.seams import Pause

Count = tuple[str, int, int]
"""As the store has it: a site or what stands before one, a slot of five minutes or an hour, and a whole number."""

ALMOST = 1e-9
LOOK = 120.0  # seconds that one look stands for at most: between two that lie further apart nobody knows
KEPT_HOURS = 90 * 24
SHUT = "shut: "
"""Before a site: in the store, the seconds of an hour for which a cap kept it waiting stand beside what it sent."""


class Gate:
    """One route's. `waiting`: the lanes to be told when an attempt of it has ended; `since`: when its cap was reached."""

    __slots__ = ("_allowance", "_seen", "inflight", "limits", "pace", "sent", "since", "waiting")

    def __init__(self, limits: RouteLimits, sent: Sent) -> None:
        self.limits = limits
        self.sent = sent
        self.pace = Pace(None)
        self.inflight = 0
        self.waiting: dict[LaneKey, None] = {}
        self.since = 0.0
        self._allowance: Allowance | None = None
        self._seen = -1

    def wait(self, monotonic: float) -> float:
        """Return the seconds until a batch may go by rate and concurrency; infinite: when an attempt has ended."""
        if self.limits.concurrency is not None and self.inflight >= self.limits.concurrency:
            return math.inf
        if self.pace.rate is None:
            return 0.0
        self.pace.refill(monotonic)
        return max((1.0 - ALMOST - self.pace.tokens) / self.pace.rate, 0.0)

    def allowance(self, now: float) -> Allowance | None:
        """Return what the caps leave; None where there are none. Looked at anew when something was counted, or a slot is over."""
        if not self.limits.capped:
            return None
        if self._seen != slot_of(now):
            before, self._allowance, self._seen = self._allowance, allowance(self.limits, self.sent, now), slot_of(now)
            if before is None or before.left:
                self.since = now
        return self._allowance

    def count(self, recipients: int, now: float) -> int:
        self.forget()
        return self.sent.add(recipients, now)

    def forget(self) -> None:
        """Look anew at what the caps leave when it is asked for."""
        self._seen = -1

    def changed(self, limits: RouteLimits, monotonic: float) -> None:
        self.limits = limits
        self.forget()
        if self.pace.rate != limits.rate:
            self.pace.set_rate(limits.rate, monotonic)


class Gates:
    """All gates of one engine, by site. Units: `now` Unix seconds, `monotonic` as the clock's."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._sent: dict[str, Sent] = {}
        self._unsaved: dict[tuple[str, int], int] = {}
        self._shut: dict[str, dict[int, int]] = {}
        self._unsaved_hours: set[tuple[str, int]] = set()
        self._looked = 0.0

    def __bool__(self) -> bool:
        return bool(self._gates)

    def configure(self, limits: Mapping[str, RouteLimits], monotonic: float) -> set[LaneKey]:
        """Go by other limits from now on; return the lanes that wait at a gate.

        What was sent and what is under way still counts.
        """
        before, self._gates = self._gates, {}
        for site, each in limits.items():
            gate = self._gates[site] = before.get(site) or Gate(each, self._sent.setdefault(site, Sent()))
            gate.changed(each, monotonic)
        return {lane for gate in before.values() for lane in gate.waiting}

    def restore(self, counts: Iterable[Count]) -> None:
        """Take up what the store has counted: site, slot, recipients; and what `unsaved_hours` gave it."""
        for site, slot, n in counts:
            if site.startswith(SHUT):
                self._shut.setdefault(site.removeprefix(SHUT), {})[slot] = n
                continue
            self._sent.setdefault(site, Sent()).slots[slot] = n

    def set_back(self, seconds: float) -> bool:
        """Move what was sent back with the clock, which was set back by `seconds`; tell whether counts have to be saved.

        It is then as long ago as before. Slots are whole, so that it may seem up to one later: no hour and no day has more
        than its cap.
        """
        by = int(seconds // SLOT)
        for site, sent in self._sent.items() if by else ():
            moved = {slot - by: n for slot, n in sent.slots.items()}
            self._unsaved.update({(site, slot): moved.get(slot, 0) for slot in sent.slots.keys() | moved.keys()})
            sent.slots = moved
        for gate in self._gates.values():
            gate.since -= seconds
            gate.forget()
        return bool(self._unsaved)

    # --- may it go? ---

    def open_for(self, site: str, recipients: int, now: float, monotonic: float) -> bool:
        """Tell whether all of a batch may go now."""
        gate = self._gates.get(site)
        if gate is None:
            return True
        found = gate.allowance(now)
        return (found is None or found.left >= recipients) and gate.wait(monotonic) <= 0.0

    def left(self, site: str, now: float) -> float:
        """Return how many recipients the caps of a route leave."""
        gate = self._gates.get(site)
        found = gate.allowance(now) if gate is not None else None
        return math.inf if found is None else found.left

    def reached(self, site: str, now: float) -> Allowance | None:
        """Return the cap that keeps a route waiting; None where none does."""
        gate = self._gates.get(site)
        found = gate.allowance(now) if gate is not None else None
        return None if found is None or found.left else found

    def busy(self, site: str, monotonic: float) -> tuple[str, float] | None:
        """Return the limit for which a route's mail waits its turn, and the seconds until the next may go; 0: when one is done."""
        gate = self._gates.get(site)
        wait = gate.wait(monotonic) if gate is not None else 0.0
        return None if wait <= 0.0 else ("concurrency", 0.0) if wait == math.inf else ("rate", wait)

    def shut_until(self, site: str, now: float) -> float | None:
        """Return until when a cap keeps a route waiting; None where none does."""
        found = self.reached(site, now)
        return None if found is None else found.until

    def shut(self, now: float) -> Iterator[tuple[str, Allowance, float]]:
        """Yield the sites that have reached a cap, what it is and since when."""
        for site, gate in self._gates.items():
            found = gate.allowance(now)
            if found is not None and not found.left:
                yield site, found, gate.since

    def waits(self, rules: Iterable[RouteRule], now: float) -> Iterator[Pause]:
        """Yield each route that has reached a cap, as operators are told of it."""
        for site, found, since in self.shut(now):
            transports = next((rule.transports for rule in rules if rule.name == site), ())
            remedy = f"{found.limit} recipients were sent; waiting mail continues by itself, or sooner with a higher {found.cap}"
            first = next(iter(transports), "")
            yield Pause(first, None, PauseReason.QUOTA, since, found.until, f"route {site}: {remedy}", route=site, cap=found.cap)

    def closed(self, lane: LaneKey, now: float, monotonic: float, arm: Callable[[float], None]) -> Callable[[Stream], bool]:
        """Return the question whether a stream of `lane` has to wait; `arm` is told for how long, where time ends it."""

        def ask(stream: Stream) -> bool:
            gate = self._gates.get(stream.site)
            if gate is None:
                return False
            if self.shut_until(stream.site, now) is not None:
                return True
            wait = gate.wait(monotonic)
            if wait == math.inf:
                gate.waiting[lane] = None
            elif wait > 0.0:
                arm(wait)
            return wait > 0.0

        return ask

    def wait_for(self, site: str, lane: LaneKey) -> None:
        """Have `lane` told when an attempt of a route has ended: it may have sent less than was counted."""
        self._gates[site].waiting[lane] = None

    # --- how long has it waited for us? ---

    def note_shut(self, now: float) -> bool:
        """Count the time since the last look for each route that a cap keeps waiting; tell whether counts have to be saved."""
        seconds = round(min(max(now - (self._looked or now), 0.0), LOOK))
        self._looked = now
        hour = int(now // HOUR)
        for site, _, _ in self.shut(now) if seconds else ():
            hours = self._shut.setdefault(site, {})
            hours[hour] = min(hours.get(hour, 0) + seconds, round(HOUR))
            self._unsaved_hours.add((site, hour))
            for old in [each for each in hours if each < hour - KEPT_HOURS]:
                del hours[old]
        return bool(self._unsaved_hours)

    def patient(self, snapshot: Snapshot, batch: Batch, now: float) -> Snapshot:
        """Return `snapshot` with the patience longer by what `batch` has waited for a cap of its route: age is what the other
        side is given, and it was not asked meanwhile.
        """
        hours = self._shut.get(batch.deliveries[0].placement.site)
        if not hours:
            return snapshot
        began = batch.message.began
        waited = min(sum(n for hour, n in hours.items() if hour >= began // HOUR), now - began)
        return replace(snapshot, retry=snapshot.retry.longer(waited)) if waited > 0 else snapshot

    def unsaved_hours(self) -> list[Count]:
        """Return what the store does not have yet of the time that caps kept routes waiting."""
        return [(SHUT + site, hour, self._shut[site].get(hour, 0)) for site, hour in self._unsaved_hours]

    def saved_hours(self, counts: Iterable[Count]) -> None:
        """Take note that the store has `unsaved_hours`, as they were then."""
        for name, hour, seconds in counts:
            site = name.removeprefix(SHUT)
            if self._shut[site].get(hour, 0) == seconds:
                self._unsaved_hours.discard((site, hour))

    # --- what goes ---

    def take(self, site: str, recipients: int, now: float, monotonic: float) -> bool:
        """Let a batch through; tell whether counts have to be saved."""
        gate = self._gates.get(site)
        if gate is None:
            return False
        gate.inflight += 1
        gate.pace.take(recipients, monotonic)
        return self._count(site, gate, recipients, now)

    def ended(self, site: str, untaken: int, now: float, *, tried: bool = True) -> tuple[list[LaneKey], bool]:
        """Note the end of an attempt, of which the next hop did not take so many recipients; `tried` False: it was not made.

        Return the lanes that waited for it, and whether counts have to be saved.
        """
        gate = self._gates.get(site)
        if gate is None:
            return [], False
        gate.inflight = max(gate.inflight - 1, 0)
        if not tried:
            gate.pace.give_back(untaken)
        waiting, gate.waiting = list(gate.waiting), {}
        return waiting, bool(untaken) and self._count(site, gate, -untaken, now)

    def unsaved(self) -> list[Count]:
        """Return the counts that the store does not have yet, each whole."""
        return [(site, slot, n) for (site, slot), n in self._unsaved.items()]

    def saved(self, counts: Iterable[Count]) -> None:
        """Take note that the store has `unsaved`, as it was then."""
        for site, slot, n in counts:
            if self._unsaved.get((site, slot)) == n:
                del self._unsaved[site, slot]

    def _count(self, site: str, gate: Gate, recipients: int, now: float) -> bool:
        if not gate.limits.capped:
            return False
        slot = gate.count(recipients, now)
        self._unsaved[site, slot] = gate.sent.slots[slot]
        return True
