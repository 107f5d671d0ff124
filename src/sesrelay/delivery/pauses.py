"""What waits and why: obstacles wider than one message, with half-open probes.

A pause stands for one scope: a transport, a nexthop, a lane (a recipient's domain) or a sender's domain within a
transport. When it runs out one batch may probe; its outcome ends the pause or renews it for longer.

Invariant: failures of attempts that began before a pause was set do not lengthen it: fifty calls that fail together
are one obstacle.

Source: docs/decisions/0011.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sesrelay.mail.delivery import LaneKey
from sesrelay.mail.outcome import Deferred, PauseReason, Scope
from sesrelay.policy import pausing
from sesrelay.seams import Pause

PauseKey = tuple[str, ...]
STALE = 300.0  # seconds after its end that a pause which nobody probes is kept
PROBE_TIME = 30.0  # seconds that others of a sender's domain wait for the outcome of its probe


@dataclass(slots=True)
class _Standing:
    pause: Pause
    streak: int
    set_at: float  # when the pause was last set: only attempts begun later may renew it
    probing: bool = False
    hurried: bool = False  # it is probed sooner than what waits behind it was put off for


def scope_key(scope: Scope, lane: LaneKey, sender_domain: str) -> PauseKey | None:
    """Return what a Deferred of `scope` pauses; None for a scope that pauses nothing."""
    if scope is Scope.TRANSPORT:
        return ("transport", lane.transport)
    if scope is Scope.NEXTHOP:
        return ("nexthop", lane.nexthop)
    if scope is Scope.RECIPIENT_DOMAIN:
        return ("lane", *lane)
    if scope is Scope.SENDER_DOMAIN:
        return ("sender_domain", lane.transport, sender_domain)
    return None


class Pauses:
    """All pauses of one engine. Units: times in Unix seconds."""

    def __init__(self) -> None:
        self._standing: dict[PauseKey, _Standing] = {}
        self.mended: list[Pause] = []  # pauses of sender domains that ended sooner than what waits behind them is due
        self._strikes: dict[PauseKey, tuple[int, float]] = {}  # obstacles in a row that were tolerated, and when the first came

    def __iter__(self) -> Iterator[Pause]:
        return (standing.pause for standing in self._standing.values())

    def told(self, lanes: Iterable[LaneKey]) -> Iterator[Pause]:
        """Yield all pauses; that of a nexthop for each transport that has one of `lanes` there, as it keeps all of them waiting."""
        at: dict[str, set[str]] = {name: set() for scope, name, *_ in self._standing if scope == "nexthop"}
        for lane in lanes if at else ():  # which may be very many
            if lane.nexthop in at:
                at[lane.nexthop].add(lane.transport)
        for (scope, name, *_), standing in self._standing.items():
            yield standing.pause
            if scope == "nexthop":
                for transport in sorted(at[name] - {standing.pause.transport}):
                    yield replace(standing.pause, transport=transport)

    def __bool__(self) -> bool:
        return bool(self._standing)

    @property
    def any_obstacle(self) -> bool:
        """Whether anything is paused, or about to be: `clear` has something to do."""
        return bool(self._standing or self._strikes)

    def set(
        self,
        outcome: Deferred,
        lane: LaneKey,
        sender_domain: str,
        *,
        began: float,
        now: float,
        schedule: Sequence[float],
        chance: float,
    ) -> tuple[float, Pause | None]:
        """Pause what `outcome` reaches. Return the seconds to wait, and the pause where it is a new one."""
        key = scope_key(outcome.scope, lane, sender_domain)
        if key is None or outcome.retry_after == 0.0:  # it reaches no further than its message, or nothing was tried
            return 0.0, None
        standing = self._standing.get(key)
        if standing is not None and began < standing.set_at and not standing.probing:
            return max(standing.pause.until - now, 0.0), None
        strikes, first = self._strikes.pop(key, (0, now))
        if standing is None and strikes + 1 < outcome.tolerance:
            self._strikes[key] = (strikes + 1, first)
            return pausing.duration(outcome, strikes + 1, schedule, chance), None
        streak = standing.streak + 1 if standing else 1
        seconds = pausing.duration(outcome, streak, schedule, chance)
        reason = outcome.reason or PauseReason.UNAVAILABLE
        since = standing.pause.since if standing else first
        domain = sender_domain if outcome.scope is Scope.SENDER_DOMAIN else None
        nexthop = None if outcome.scope is Scope.TRANSPORT else lane.nexthop
        remedy = outcome.remedy or str(outcome.reply)
        pause = Pause(lane.transport, nexthop, reason, since, now + seconds, remedy, domain)
        news = standing is None or standing.pause.reason is not reason
        self._standing[key] = _Standing(pause, streak, now)
        return seconds, pause if news else None

    def clear(self, lane: LaneKey, sender_domain: str, *, began: float, sender_too: bool) -> list[Pause]:
        """Lift what an attempt that got through has shown to be over; return the pauses lifted.

        `sender_too`: the message itself was taken, so its sender's domain is free as well.
        """
        keys: list[PauseKey] = [("transport", lane.transport), ("nexthop", lane.nexthop), ("lane", *lane)]
        if sender_too:
            keys.append(("sender_domain", lane.transport, sender_domain))
        lifted = []
        for key in keys:
            standing = self._standing.get(key)
            self._strikes.pop(key, None)
            if standing is not None and (standing.probing or began >= standing.set_at):
                lifted.append(self._standing.pop(key).pause)
                if standing.hurried and key[0] == "sender_domain":
                    self.mended.append(standing.pause)
        return lifted

    def blocked_until(self, lane: LaneKey, now: float) -> float | None:
        """Return until when `lane` waits; None where it may send. Where only a probe may go, see `probe`."""
        until = None
        for key in self._keys(lane):
            standing = self._standing[key]
            if standing.pause.until > now or standing.probing:
                until = max(until or 0.0, standing.pause.until, now + 1.0 if standing.probing else 0.0)
        return until

    def longest(self, lane: LaneKey) -> Pause | None:
        """Return the pause that stands for `lane`, of several the one that lasts longest; None where none does."""
        return max((self._standing[key].pause for key in self._keys(lane)), key=lambda pause: pause.until, default=None)

    def must_probe(self, lane: LaneKey) -> bool:
        """Tell whether a pause stands that has run out: one batch may go, and the others wait for its outcome."""
        return any(True for _ in self._keys(lane))

    def probe(self, lane: LaneKey) -> None:
        """Note that one batch is under way to see whether the obstacle is gone."""
        for key in self._keys(lane):
            self._standing[key].probing = True

    def probe_ended(self, lane: LaneKey, sender_domain: str) -> None:
        """Note that a probe came back, where it said nothing of the obstacle."""
        for key in (*self._keys(lane), ("sender_domain", lane.transport, sender_domain)):
            if key in self._standing:
                self._standing[key].probing = False

    def sender_wait(self, transport: str, sender_domain: str, now: float) -> float | None:
        """Return until when a sender's domain waits within a transport; None where a batch of it may go."""
        standing = self._standing.get(("sender_domain", transport, sender_domain))
        return standing.pause.until if standing is not None and standing.pause.until > now else None

    def probe_sender(self, transport: str, sender_domain: str, now: float) -> None:
        """Note that a batch of a sender's domain goes out; where its pause has run out the others wait for the outcome."""
        standing = self._standing.get(("sender_domain", transport, sender_domain))
        if standing is not None:
            standing.pause = replace(standing.pause, until=now + PROBE_TIME)
            standing.probing = True

    def holds_sender(self, transport: str, sender_domain: str) -> bool:
        return ("sender_domain", transport, sender_domain) in self._standing

    def since(self, lane: LaneKey, sender_domain: str | None = None) -> float | None:
        """Return since when `lane` has been paused, by the oldest pause that stands for it; None where none does.

        `sender_domain`: of whose mail is asked, so that a pause of that domain in the lane's transport counts too.
        """
        pauses = [self._standing[key].pause.since for key in self._keys(lane)]
        sender = self._standing.get(("sender_domain", lane.transport, sender_domain)) if sender_domain is not None else None
        return min(pauses if sender is None else [*pauses, sender.pause.since], default=None)

    def hurry(self, now: float) -> None:
        """Let every pause be probed now: the operator says that the obstacle is gone."""
        for standing in self._standing.values():
            standing.hurried = standing.hurried or standing.pause.until > now
            standing.pause = replace(standing.pause, until=min(standing.pause.until, now))

    def set_back(self, seconds: float) -> None:
        """Let every pause keep what is left of it after the clock was set back by `seconds`."""
        for standing in self._standing.values():
            pause = standing.pause
            standing.pause = replace(pause, since=pause.since - seconds, until=pause.until - seconds)
            standing.set_at -= seconds
        self._strikes = {key: (strikes, first - seconds) for key, (strikes, first) in self._strikes.items()}

    def drop_stale(self, now: float) -> list[Pause]:
        """Drop the pauses that ran out long ago without a probe: nothing waits behind them any more."""
        stale = [key for key, standing in self._standing.items() if standing.pause.until < now - STALE and not standing.probing]
        return [self._standing.pop(key).pause for key in stale]

    def forget(self) -> list[Pause]:
        """Drop all pauses, as at a reload: what caused them may have been mended."""
        lifted = [standing.pause for standing in self._standing.values()]
        self._standing.clear()
        self._strikes.clear()
        return lifted

    def _keys(self, lane: LaneKey) -> Iterator[PauseKey]:
        if not self._standing:
            return
        for key in (("transport", lane.transport), ("nexthop", lane.nexthop), ("lane", *lane)):
            if key in self._standing:
                yield key
