"""The log sink: each event of mail becomes one line that a person can grep for by its queue id.

Invariant: the queue id stands on every line that is about a message; a subject or a body on none.
Invariant: a line that its level excludes costs one comparison.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from sesrelay.mail.dates import rfc3339
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, State
from sesrelay.mail.envelope import Message, Origin
from sesrelay.mail.outcome import Outcome
from sesrelay.mail.reply import Reply
from sesrelay.observe.flood import Flood
from sesrelay.observe.log import FilteringBoundLogger, describe, facts_of
from sesrelay.observe.outcomes import outcome_name
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Clock, Pause

CHEAP = frozenset({"limits", "client", "tls", "auth", "timeout", "syntax", "sequence"})
"""Reasons of refusals that cost a client next to nothing to provoke, as often as it likes."""

# Lines of one reason in a window. Beside two sessions in progress and the start, a crowd's are below 20; of the others,
# about addresses, policy and content, somebody will ask, and all that programs which mean well bring about are there.
BURST_CHEAP = 8
BURST = 200
BURST_TROUBLE = 50  # of the same words, in notices too


class LogSink:
    """Implements `seams.Observer` over the logger that `log.configure` returned."""

    def __init__(self, logger: FilteringBoundLogger, clock: Clock) -> None:
        self._wall = clock.wall
        self._flood = Flood(clock.monotonic)
        self._debugging = logger.is_enabled_for(logging.DEBUG)
        self._informing = logger.is_enabled_for(logging.INFO)
        self._debug, self._info = logger.debug, logger.info
        self._warning, self._error = logger.warning, logger.error

    def connected(self, listener: str) -> None:
        if self._flood.hiding:
            self._tell_of_hidden()
        if self._debugging:
            self._debug("connected", listener=listener)

    def disconnected(self, listener: str) -> None:
        if self._flood.hiding:
            self._tell_of_hidden()
        if self._debugging:
            self._debug("disconnected", listener=listener)

    def accepted(self, message: Message, seconds: float) -> None:
        if not self._informing:
            return
        if self._flood.hiding:
            self._tell_of_hidden()
        envelope, origin = message.envelope, message.origin
        self._info(
            "accepted",
            queue_id=message.id,
            sender=envelope.sender,
            recipients=len(envelope.recipients),
            size=message.size,
            message_id=message.message_id,
            listener=origin.listener,
            client=origin.client,
            user=origin.who,
            tls=origin.tls,
            seconds=round(seconds, 6),
        )

    def refused(self, origin: Origin, reply: Reply, reason: str) -> None:
        if not self._informing:
            return
        if self._flood.hiding:
            self._tell_of_hidden()
        left = self._flood.passes(("refused", reason), BURST_CHEAP if reason in CHEAP else BURST)
        if not left:
            return
        self._info(
            "refused",
            reason=reason,
            reply=str(reply),
            listener=origin.listener,
            client=origin.client,
            helo=origin.helo,
            user=origin.who,
            **self._flood.noted(left),
        )

    def _tell_of_hidden(self) -> None:
        for (event, kind), number in self._flood.over():
            self._warning("not_shown", of=event, kind=kind, lines=number)

    def attempted(self, batch: Batch, outcomes: Mapping[DeliveryId, Outcome], seconds: float, waited: float | None) -> None:
        if self._debugging:
            self._debug(
                "attempt",
                queue_id=batch.message.id,
                transport=batch.lane.transport,
                nexthop=batch.lane.nexthop,
                recipients=len(batch),
                seconds=round(seconds, 6),
                waited=None if waited is None else round(waited, 6),
                **Counter[str](outcome_name(outcome) for outcome in outcomes.values()),
            )

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        state = verdict.state
        if state is State.HELD:
            say, event = self._warning, "held"
        elif not self._informing:
            return
        elif state is State.QUEUED:
            say, event = self._info, "deferred"
        else:
            say, event = self._info, state.value
        facts: dict[str, object] = {}
        if state is State.DELIVERED:
            facts["remote_id"] = verdict.remote_id
        else:
            facts["reason"] = verdict.reason
            if state is State.QUEUED:
                facts["next_attempt"] = rfc3339(verdict.due)
            elif verdict.end is not None:
                facts["outcome"] = verdict.end
        message, placement = delivery.message, delivery.placement
        say(
            event,
            queue_id=message.id,
            sender=message.envelope.sender,
            recipient=delivery.recipient.address,
            route=placement.route,
            transport=placement.lane.transport,
            nexthop=placement.lane.nexthop,
            attempts=verdict.attempts,
            seconds=round(self._wall() - message.accepted, 3),
            reply=verdict.reply,
            **facts,
        )

    def reported(self, original: Message, report: Message) -> None:
        if self._informing:
            self._info("reported", queue_id=original.id, report_id=report.id, recipient=original.envelope.sender)

    def paused(self, pause: Pause) -> None:
        self._warning(
            "paused",
            transport=pause.transport,
            nexthop=pause.nexthop,
            domain=pause.domain,
            reason=pause.reason.value,
            until=rfc3339(pause.until),
            remedy=pause.remedy or None,
        )

    def resumed(self, pause: Pause) -> None:
        self._info(
            "resumed",
            transport=pause.transport,
            nexthop=pause.nexthop,
            domain=pause.domain,
            reason=pause.reason.value,
            seconds=round(self._wall() - pause.since, 3),
        )

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        self._debug("quota", transport=transport, rate=rate, max_24h=max_24h, sent_24h=sent_24h)

    def account(self, transport: str, standing: AccountStanding) -> None:
        self._debug(
            "account",
            transport=transport,
            region=standing.region,
            sandbox=standing.sandbox,
            attempts_24h=standing.attempts_24h,
            bounces_24h=standing.bounces_24h,
            complaints_24h=standing.complaints_24h,
            rejects_24h=standing.rejects_24h,
        )

    def reloaded(self, ok: bool, detail: str) -> None:
        if ok:
            self._info("reloaded", ok=True, detail=detail)
        else:
            self._error("reloaded", ok=False, detail=detail)

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        if self._flood.hiding:
            self._tell_of_hidden()
        left = self._flood.passes(("trouble", what), BURST_TROUBLE)
        if left:
            more = describe(error) if error is not None else {}
            self._error("trouble", **{"what": what, **facts_of(facts), **more, **self._flood.noted(left)})

    def notice(self, what: str, **facts: object) -> None:
        if not self._informing:
            return
        if self._flood.hiding:
            self._tell_of_hidden()
        left = self._flood.passes(("notice", what), BURST_TROUBLE)
        if left:
            self._info("notice", **{"what": what, **facts_of(facts), **self._flood.noted(left)})
