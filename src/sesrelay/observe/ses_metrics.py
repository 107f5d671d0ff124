"""The metrics of SES accounts: what may be sent, what was, what became of it, and what that costs.

Invariant: the price is an estimate by the tariff that the configuration names; AWS's bill is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from sesrelay.observe.counting import Counts
from sesrelay.policy.reputation import AccountStanding

GB = 1_000_000_000

Tariff = tuple[float, float]
"""What a thousand recipients cost, and a gigabyte, in any one currency."""


class SesMetrics:
    """Labels: `transport` only; transports of one account show the same figures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges: list[Gauge] = []

        def gauge(name: str, text: str) -> Gauge:
            self._gauges.append(Gauge(f"sesrelay_ses_{name}", text, ["transport"], registry=registry))
            return self._gauges[-1]

        def counter(name: str, text: str) -> Counts:
            return Counts(f"sesrelay_ses_{name}", text, ["transport"], registry)

        self._rate = gauge("send_rate_limit", "The account's recipients a second")
        self._quota = gauge("quota_24h", "The account's recipients in 24 h; -1: unlimited")
        self._sent = gauge("sent_24h", "Recipients the account sent to in 24 h")
        self._seconds_left = gauge("quota_seconds_left", "Seconds until the 24 h quota is used up at the present rate")
        self._reserving = gauge("reserve_in_force", "1 while what is left of the quota is kept for priority high")
        self._sandbox = gauge("sandbox", "1 while the account is in the sandbox")
        self._attempts = gauge("attempts_24h", "Messages of the account that SES tried to deliver in 24 h")
        self._bounces = gauge("bounces_24h", "Messages of the account that bounced in 24 h")
        self._complaints = gauge("complaints_24h", "Messages of the account that recipients complained about in 24 h")
        self._rejects = gauge("rejects_24h", "Messages of the account that SES rejected for their content in 24 h")
        self._throttled = counter("throttled", "Calls that SES refused for their rate")
        self._recipients = counter("recipients", "Recipients whose message SES took")
        self._octets = counter("bytes", "Bytes of messages that SES took, each counted once a recipient")
        self._price = counter("price_estimate", "What SES is estimated to charge for them, by the configured tariff")
        self._tariffs: Mapping[str, Tariff] = {}
        self._known: tuple[str, ...] = ()
        self.standings: dict[str, AccountStanding] = {}

    def expect(self, transports: Iterable[str], tariffs: Mapping[str, Tariff]) -> None:
        """Let the counters of these transports stand at 0 from the start, count by these tariffs, and show no other's account."""
        before = {*self._known, *self.standings}
        self._known, self._tariffs = tuple(transports), tariffs
        for gone in before.difference(self._known):
            for gauge in self._gauges:
                gauge.remove(gone)
        self.standings = {name: standing for name, standing in self.standings.items() if name in self._known}
        for transport in self._known:
            for each in (self._throttled, self._recipients, self._octets, self._price):
                each.expect(transport)

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        self._rate.labels(transport).set(rate)
        self._quota.labels(transport).set(max_24h)
        self._sent.labels(transport).set(sent_24h)

    def account(self, transport: str, standing: AccountStanding) -> None:
        self.standings[transport] = standing
        self._seconds_left.labels(transport).set(standing.seconds_left)
        self._reserving.labels(transport).set(standing.reserving)
        if standing.sandbox is not None:
            self._sandbox.labels(transport).set(standing.sandbox)
        told = (
            (self._attempts, standing.attempts_24h),
            (self._bounces, standing.bounces_24h),
            (self._complaints, standing.complaints_24h),
            (self._rejects, standing.rejects_24h),
        )
        for gauge, value in told:
            gauge.labels(transport).set(math.nan if value is None else value)

    def throttled(self, transport: str) -> None:
        self._throttled.add(transport)

    def sent(self, transport: str, recipients: int, size: int) -> None:
        """Count a message of `size` octets that SES took for so many recipients; of other transports nothing is counted."""
        if not recipients or transport not in self._known:
            return
        self._recipients.add(transport, amount=recipients)
        self._octets.add(transport, amount=recipients * size)
        tariff = self._tariffs.get(transport)
        if tariff is not None:
            self._price.add(transport, amount=recipients * (tariff[0] / 1000 + tariff[1] * size / GB))
