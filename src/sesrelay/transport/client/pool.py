"""Connections to SMTP hosts, kept open for the next message.

Invariant: a session is with one caller at a time, and only a usable one is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sesrelay.seams import Clock
from sesrelay.transport.client.connect import Endpoint
from sesrelay.transport.client.session import Session

TICK = 0.001  # seconds: what a loop may ring too early


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long connections are kept. Units: seconds; `messages` transactions in one connection; `sessions` idle ones a host,
    `total` over all of them.
    """

    idle: float = 20.0
    age: float = 300.0
    messages: int = 1000  # Postfix sets no limit (smtp_connection_reuse_count_limit); a host that has one says 421
    sessions: int = 20
    total: int = 100


class Pool:
    """Sessions that wait for work, by endpoint; the one used last goes first, so the first of a list waits longest."""

    def __init__(self, keeping: Keeping, clock: Clock) -> None:
        self._keeping = keeping
        self._clock = clock
        self._idle: dict[Endpoint, list[Session]] = {}
        self._waiting = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, endpoint: Endpoint) -> Session | None:
        """Return a kept session that looks alive, or None."""
        idle = self._idle.get(endpoint)
        while idle:
            session = idle.pop()
            self._waiting -= 1
            if session.usable and session.born is not None and self._clock.monotonic() - session.born < self._keeping.age:
                return session
            session.leave()
        return None

    def put(self, session: Session) -> None:
        """Keep a session for the next message, or close it where it has served enough."""
        keeping, now = self._keeping, self._clock.monotonic()
        if session.born is None:
            session.born = now
        most = keeping.messages if session.transaction_limit is None else min(keeping.messages, session.transaction_limit)
        worn = session.transactions >= most or now - session.born >= keeping.age
        idle = self._idle.get(session.endpoint) or []
        full = len(idle) >= keeping.sessions or self._waiting >= keeping.total
        if self._closed or worn or full or not session.usable:
            session.leave()
            return
        loop = asyncio.get_running_loop()
        session.since = loop.time()
        idle.append(session)
        self._idle[session.endpoint] = idle
        self._waiting += 1
        if self._sweeper is None:  # one timer for all: a busy session comes and goes thousands of times before it expires
            self._sweeper = loop.call_later(keeping.idle, self._sweep)

    def close(self) -> None:
        """Leave every idle session; those in use are left when they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for session in idle:
                session.leave()
        self._idle.clear()
        self._waiting = 0

    def _sweep(self) -> None:
        """Leave what has waited long enough; come again when the next one will have."""
        loop = asyncio.get_running_loop()
        expired = loop.time() - self._keeping.idle + TICK
        for idle in self._idle.values():
            while idle and idle[0].since <= expired:
                idle.pop(0).leave()
                self._waiting -= 1
        self._idle = {endpoint: idle for endpoint, idle in self._idle.items() if idle}
        waiting = [idle[0].since for idle in self._idle.values()]
        self._sweeper = loop.call_at(min(waiting) + self._keeping.idle, self._sweep) if waiting else None
