"""Connections to relays, kept open for the next message.

Invariant: a session is with one caller at a time, and only a usable one is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sesrelay.seams import Clock
from sesrelay.transport.smtp_connect import Endpoint
from sesrelay.transport.smtp_session import Session


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long connections are kept. Units: seconds; `messages` transactions in one connection; `sessions` idle ones a host."""

    idle: float = 20.0
    age: float = 300.0
    messages: int = 100
    sessions: int = 20


@dataclass(slots=True)
class _Kept:
    session: Session
    opened: float
    expiry: asyncio.TimerHandle | None = None


class Pool:
    """Sessions that wait for work, by endpoint; the one used last goes first."""

    def __init__(self, keeping: Keeping, clock: Clock) -> None:
        self._keeping = keeping
        self._clock = clock
        self._idle: dict[Endpoint, list[_Kept]] = {}
        self._opened: dict[Session, float] = {}
        self._closed = False

    def take(self, endpoint: Endpoint) -> Session | None:
        """Return a kept session that looks alive, or None."""
        idle = self._idle.get(endpoint, [])
        while idle:
            kept = idle.pop()
            if kept.expiry is not None:
                kept.expiry.cancel()
            if kept.session.usable and self._clock.monotonic() - kept.opened < self._keeping.age:
                self._opened[kept.session] = kept.opened
                return kept.session
            kept.session.leave()
        return None

    def put(self, session: Session) -> None:
        """Keep a session for the next message, or close it where it has served enough."""
        now = self._clock.monotonic()
        opened = self._opened.pop(session, now)
        idle = self._idle.setdefault(session.endpoint, [])
        worn = session.transactions >= self._keeping.messages or now - opened >= self._keeping.age
        if self._closed or worn or not session.usable or len(idle) >= self._keeping.sessions:
            session.leave()
            return
        kept = _Kept(session, opened)
        kept.expiry = asyncio.get_running_loop().call_later(self._keeping.idle, self._expire, kept)
        idle.append(kept)

    def close(self) -> None:
        """Leave every idle session; those in use are left when they come back."""
        self._closed = True
        for idle in self._idle.values():
            for kept in idle:
                if kept.expiry is not None:
                    kept.expiry.cancel()
                kept.session.leave()
            idle.clear()

    def _expire(self, kept: _Kept) -> None:
        idle = self._idle.get(kept.session.endpoint, [])
        if kept in idle:
            idle.remove(kept)
            kept.session.leave()
