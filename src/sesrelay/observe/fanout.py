"""Gives each event of mail to every sink, and keeps a sink's fault from the mail.

Invariant: nothing here raises, and nothing waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId
from sesrelay.mail.envelope import Message, Origin
from sesrelay.mail.outcome import Outcome
from sesrelay.mail.reply import Reply
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Observer, Pause

_log = logging.getLogger(__name__)


class Fanout:
    """Implements `seams.Observer`. A sink that fails is reported once an event kind, and asked again next time."""

    def __init__(self, sinks: Sequence[Observer]) -> None:
        self.replace(sinks)

    def replace(self, sinks: Sequence[Observer]) -> None:
        """Go on with other sinks, as after a reload that changed the log's level."""
        self._sinks = tuple(sinks)
        self._accepted = tuple(sink.accepted for sink in sinks)
        self._attempted = tuple(sink.attempted for sink in sinks)
        self._settled = tuple(sink.settled for sink in sinks)
        self._faulty: set[tuple[int, str]] = set()

    # The three that every message passes keep their calls ready; the others are rare.

    def accepted(self, message: Message, seconds: float) -> None:
        for call in self._accepted:
            try:
                call(message, seconds)
            except Exception as fault:
                self._fault(call, fault)

    def attempted(self, batch: Batch, outcomes: Mapping[DeliveryId, Outcome], seconds: float, waited: float | None) -> None:
        for call in self._attempted:
            try:
                call(batch, outcomes, seconds, waited)
            except Exception as fault:
                self._fault(call, fault)

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        for call in self._settled:
            try:
                call(delivery, verdict)
            except Exception as fault:
                self._fault(call, fault)

    def connected(self, listener: str) -> None:
        self._each("connected", listener)

    def disconnected(self, listener: str) -> None:
        self._each("disconnected", listener)

    def refused(self, origin: Origin, reply: Reply, reason: str) -> None:
        self._each("refused", origin, reply, reason)

    def reported(self, original: Message, report: Message) -> None:
        self._each("reported", original, report)

    def paused(self, pause: Pause) -> None:
        self._each("paused", pause)

    def resumed(self, pause: Pause) -> None:
        self._each("resumed", pause)

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        self._each("quota", transport, rate, max_24h, sent_24h)

    def account(self, transport: str, standing: AccountStanding) -> None:
        self._each("account", transport, standing)

    def reloaded(self, ok: bool, detail: str) -> None:
        self._each("reloaded", ok, detail)

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        self._each("trouble", what, error, **facts)

    def notice(self, what: str, **facts: object) -> None:
        self._each("notice", what, **facts)

    def _each(self, method: str, /, *args: Any, **facts: Any) -> None:
        for sink in self._sinks:
            call: Callable[..., None] = getattr(sink, method)
            try:
                call(*args, **facts)
            except Exception as fault:
                self._fault(call, fault)

    def _fault(self, call: Callable[..., None], fault: Exception) -> None:
        sink: object = getattr(call, "__self__", call)
        key = (id(sink), call.__name__)
        if key not in self._faulty:
            self._faulty.add(key)
            _log.error("%s.%s failed; this is logged only once", type(sink).__name__, call.__name__, exc_info=fault)
