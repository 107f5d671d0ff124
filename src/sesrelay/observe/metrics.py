"""The metrics of the public contract: counted as mail events come, gauges of the queue filled in when they are asked for.

Invariant: a registry of our own; no label holds an address, or anything else a client chose.
Invariant: what each message moves costs a few additions, see `counting`.

Source: the public contract, Metrics; Prometheus text format 0.0.4.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

import sesrelay
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, State
from sesrelay.mail.envelope import Message, Origin
from sesrelay.mail.outcome import Deferred, Delivered, Held, Outcome, PauseReason
from sesrelay.mail.reply import Reply
from sesrelay.observe.counting import Counts, Timings
from sesrelay.observe.outcomes import outcome_name
from sesrelay.observe.ses_metrics import SesMetrics, Tariff
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.verdict import Verdict
from sesrelay.seams import Clock, Pause, Stats

OPEN_STATES = (State.QUEUED, State.IN_FLIGHT, State.HELD)
ATTEMPT_OUTCOMES = ("delivered", "deferred", "failed", "ambiguous")
DELIVERY_OUTCOMES = ("delivered", "failed", "expired", "suppressed")

# Group commit answers in 0.3-30 ms; a slow disk or a full queue shows in the seconds.
ACCEPT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# An API call takes 20-200 ms; RFC 5321 §4.5.3.2.6 lets a host take ten minutes for the final dot.
ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
# At once when all is well, hours behind a pause or a used-up quota.
WAIT_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class MetricsSink:
    """Implements `seams.Observer`; `render` is what /metrics answers, `counters` what the status page shows."""

    def __init__(self, clock: Clock) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
        self._clock = clock
        self.registry = CollectorRegistry()
        self._count_messages()
        self._count_attempts()
        self._gauge_queue()
        self._ses = SesMetrics(self.registry)
        self._pauses: dict[tuple[str, str | None, str | None], Pause] = {}
        self._transports: tuple[str, ...] = ()
        self._totals = dict.fromkeys(("accepted", "refused", "delivered", "deferred", "failed"), 0)

    def _count_messages(self) -> None:
        to = self.registry
        self._accepted = Counts("sesrelay_messages_accepted", "Messages accepted: durable, 250 given", ["listener"], to)
        self._refused = Counter("sesrelay_messages_refused", "Commands and messages refused", ["reason"], registry=to)
        self._accept_seconds = Timings(
            "sesrelay_accept_seconds", "Seconds from the end of DATA to the reply", [], ACCEPT_BUCKETS, to
        )
        self._accept_seconds.expect()
        self._connections = Gauge("sesrelay_smtp_connections", "SMTP connections open now", ["listener"], registry=to)
        self._reports = Counter("sesrelay_reports", "Delivery status notifications made", registry=to)
        self._troubles = Counter("sesrelay_troubles", "Internal errors; the log names each", registry=to)
        # Kept because labels() takes a lock and builds a key.
        self._connections_by: dict[str, Gauge] = {}

    def _count_attempts(self) -> None:
        to = self.registry
        self._wait = Timings(
            "sesrelay_queue_wait_seconds", "Seconds from acceptance to the first attempt", ["transport"], WAIT_BUCKETS, to
        )
        self._attempts = Counts(
            "sesrelay_attempts", "Delivery attempts, counted by delivery, by outcome", ["transport", "outcome"], to
        )
        self._attempt_seconds = Timings(
            "sesrelay_attempt_seconds", "Seconds that a batch's attempt took", ["transport"], ATTEMPT_BUCKETS, to
        )
        self._deliveries = Counts("sesrelay_deliveries", "Finished deliveries, by outcome", ["route", "transport", "outcome"], to)

    def _gauge_queue(self) -> None:
        to = self.registry
        self._queue = Gauge("sesrelay_queue_deliveries", "Deliveries that have not ended", ["state", "transport"], registry=to)
        self._bytes = Gauge("sesrelay_queue_bytes", "Bytes of content at rest", registry=to)
        self._oldest = Gauge("sesrelay_queue_oldest_seconds", "Age of the oldest open delivery", ["transport"], registry=to)
        self._paused = Gauge(
            "sesrelay_transport_paused", "1 while a transport, or part of it, is paused", ["transport", "reason"], registry=to
        )
        self._reload_success = Gauge(
            "sesrelay_config_reload_success", "1 if the last load or reload of the configuration succeeded", registry=to
        )
        self._reload_time = Gauge(
            "sesrelay_config_reload_timestamp_seconds", "When the current configuration was loaded", registry=to
        )
        self._reload_success.set(1)
        self._reload_time.set(self._clock.wall())
        build = Gauge("sesrelay_build_info", "Which sesrelay this is", ["version", "python"], registry=to)
        build.labels(sesrelay.__version__, platform.python_version()).set(1)

    def expect(
        self,
        listeners: Iterable[str],
        transports: Iterable[str],
        routes: Mapping[str, Iterable[str]],
        ses: Iterable[str] = (),
        tariffs: Mapping[str, Tariff] | None = None,
    ) -> None:
        """Let what the configuration names stand at 0 from the start; call again after a reload.

        `routes`: each route's name with its transports; `ses`: the transports of that type, and `tariffs` what they cost.
        """
        self._transports = tuple(transports)
        for listener in listeners:
            self._accepted.expect(listener)
            self._connections.labels(listener)
        for transport in self._transports:
            self._wait.expect(transport)
            self._attempt_seconds.expect(transport)
            for outcome in ATTEMPT_OUTCOMES:
                self._attempts.expect(transport, outcome)
        for route, ways in routes.items():
            for transport in ways:
                for outcome in DELIVERY_OUTCOMES:
                    self._deliveries.expect(route, transport, outcome)
        self._ses.expect(ses, tariffs or {})

    def render(self, stats: Stats | None, now: float, pauses: Iterable[Pause] | None = None) -> bytes:
        """Return all metrics as Prometheus text 0.0.4.

        `stats` None: the store could not be asked, and what it would tell is left out. `pauses`: those that stand now;
        None: as the events told. Units: `now` Unix seconds.
        """
        self._fill_queue(stats, now)
        self._paused.clear()
        for pause in self._pauses.values() if pauses is None else pauses:
            self._paused.labels(pause.transport, pause.reason.value).set(1)
        return generate_latest(self.registry)

    def counters(self) -> Mapping[str, int]:
        """Return the totals since the start: accepted, refused, delivered, deferred (attempts), failed."""
        return self._totals

    def _fill_queue(self, stats: Stats | None, now: float) -> None:
        self._queue.clear()
        self._oldest.clear()
        self._bytes.set(float("nan") if stats is None else stats.bytes)
        if stats is None:
            return
        for transport in self._transports:
            self._oldest.labels(transport).set(0)
            for state in OPEN_STATES:
                self._queue.labels(state.value, transport).set(0)
        for (transport, state), count in stats.counts.items():
            self._queue.labels(state.value, transport).set(count)
        for transport, since in stats.oldest_by_transport.items():
            self._oldest.labels(transport).set(max(now - since, 0.0))

    # --- events ---

    def connected(self, listener: str) -> None:
        self._connections_of(listener).inc()

    def disconnected(self, listener: str) -> None:
        self._connections_of(listener).dec()

    def _connections_of(self, listener: str) -> Gauge:
        gauge = self._connections_by.get(listener)
        if gauge is None:
            gauge = self._connections_by[listener] = self._connections.labels(listener)
        return gauge

    def accepted(self, message: Message, seconds: float) -> None:
        self._accepted.add(message.origin.listener)
        self._accept_seconds.observe(seconds)
        self._totals["accepted"] += 1

    def refused(self, origin: Origin, reply: Reply, reason: str) -> None:
        self._refused.labels(reason).inc()
        self._totals["refused"] += 1

    def attempted(self, batch: Batch, outcomes: Mapping[DeliveryId, Outcome], seconds: float, waited: float | None) -> None:
        transport = batch.lane.transport
        self._attempt_seconds.observe(seconds, transport)
        if waited is not None:
            self._wait.observe(max(waited, 0.0), transport)
        throttled, taken = False, 0
        for outcome in outcomes.values():
            taken += isinstance(outcome, Delivered)
            if not isinstance(outcome, Held):  # which costs no attempt
                self._attempts.add(transport, outcome_name(outcome))
            throttled = throttled or (isinstance(outcome, Deferred) and outcome.reason is PauseReason.THROTTLED)
        if throttled:
            self._ses.throttled(transport)
        self._ses.sent(transport, taken, batch.message.size)

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        if verdict.end is None:
            if verdict.state is State.QUEUED:
                self._totals["deferred"] += 1
            return
        placement = delivery.placement
        self._deliveries.add(placement.route, placement.lane.transport, verdict.end)
        self._totals["delivered" if verdict.end == "delivered" else "failed"] += 1

    def reported(self, original: Message, report: Message) -> None:
        self._reports.inc()

    def paused(self, pause: Pause) -> None:
        self._pauses[pause.transport, pause.nexthop, pause.domain] = pause

    def resumed(self, pause: Pause) -> None:
        self._pauses.pop((pause.transport, pause.nexthop, pause.domain), None)

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        self._ses.quota(transport, rate, max_24h, sent_24h)

    def account(self, transport: str, standing: AccountStanding) -> None:
        self._ses.account(transport, standing)

    def accounts(self) -> Mapping[str, AccountStanding]:
        """Return how the account behind each SES transport stands, of those that have told."""
        return self._ses.standings

    def reloaded(self, ok: bool, detail: str) -> None:
        self._reload_success.set(1 if ok else 0)
        if ok:
            self._reload_time.set(self._clock.wall())

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        self._troubles.inc()

    def notice(self, what: str, **facts: object) -> None:
        """Nothing to count."""
