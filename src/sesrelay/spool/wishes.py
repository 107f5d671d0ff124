"""What an operator's verb does to a delivery in each state, and what is left of a wish when the attempt ends.

Invariant: the table is the whole of it, for every implementation of the store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sesrelay.mail.delivery import State
from sesrelay.mail.trace import Event
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Verb

HELD_BY_OPERATOR = "operator"
DELETED = "deleted"
BY_OPERATOR = "by the operator"

Wish = Literal["hold", "retry", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb does now: `state` the next one. A `wish` (or None to forget one) changes nothing else yet."""

    state: State
    wish: Wish | None = None


def decide(verb: Verb, state: State, wish: Wish | None) -> Change | None:
    """Return what `verb` does to a delivery, or None where it does nothing."""
    if state is State.IN_FLIGHT:
        if wish == "delete":
            return None  # what is to be deleted stays so
        if verb == "release":
            return Change(state, None) if wish == "hold" else None
        return Change(state, verb)
    if state is State.QUEUED:
        return {
            "hold": Change(State.HELD),
            "retry": Change(State.QUEUED),
            "delete": Change(State.FAILED),
        }.get(verb)
    if state is State.HELD:
        return {"release": Change(State.QUEUED), "delete": Change(State.FAILED)}.get(verb)
    return None


def fulfil(verdict: Verdict, wish: str | None, now: float) -> Verdict:
    """Return `verdict` with the wish that came in flight. A final verdict stands; a held one gives way to delete alone."""
    if wish is None or verdict.state.final:
        return verdict
    if wish == "delete":
        return replace(verdict, state=State.FAILED, due=now, reason=DELETED)
    if verdict.state is not State.QUEUED:
        return verdict
    if wish == "hold":
        return replace(verdict, state=State.HELD, due=now, reason=HELD_BY_OPERATOR)
    return replace(verdict, due=now)


def event(what: str, time: float, recipient: str, transport: str, nexthop: str) -> Event:
    """Return the line of the trace for a verb that has taken effect."""
    if what == "hold":
        return Event(time, "held", recipient, transport, nexthop, reply=BY_OPERATOR)
    if what == "delete":
        return Event(time, "failed", recipient, transport, nexthop, reply=f"{DELETED} {BY_OPERATOR}")
    reply = BY_OPERATOR if what == "release" else f"to be tried now, {BY_OPERATOR}"
    return Event(time, "released", recipient, transport, nexthop, reply=reply)
