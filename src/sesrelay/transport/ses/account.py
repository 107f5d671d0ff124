"""What transports that send through one account in one region share: connections, pace, and the account's figures.

It outlives a reload: new transports attach to the accounts of the old ones before those let go.

Invariant: the pace starts at the sandbox's 1 a second until the account has been asked, and is never above what it said.

Source: Amazon SES developer guide, "Sending quotas" (counted in recipients, by account and region).
"""

from __future__ import annotations

import asyncio

from sesrelay.policy.pace import Pace
from sesrelay.seams import Clock, Observer
from sesrelay.transport.ses.seam import AwsSession, Figures
from sesrelay.transport.ses.wire import Wire

FIRST_RATE = 1.0  # the sandbox's
FALLBACK_RATE = 14.0  # what a new account out of the sandbox has, where the figures may not be read
REFRESH_EVERY = 120.0  # seconds
ASK_AT_MOST_EVERY = 60.0  # seconds, where the quota is used up or the last question failed
LEAST_FACTOR = 1 / 16
RECOVERS_IN = 20.0  # seconds from half the rate to the whole


class Limiter:
    """A pace that halves when it is refused and comes back little by little. Units: recipients a second."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._factor = 1.0
        self._eased = now
        self._pace = Pace(rate, burst=max(1.0, rate), tokens=1.0, at=now)

    @property
    def current(self) -> float:
        return self.rate * self._factor

    def take(self, recipients: int, now: float) -> float:
        self._recover(now)
        return self._pace.take(recipients, now)

    def give_back(self, recipients: int) -> None:
        self._pace.give_back(recipients)

    def set_rate(self, rate: float, now: float) -> None:
        if rate != self.rate:
            self.rate = rate
            self._pace.set_rate(self.current, now)

    def throttled(self, now: float) -> None:
        """Halve the pace; calls that were under way together count once."""
        if now - self._eased >= 1.0 or self._factor == 1.0:
            self._factor = max(self._factor / 2, LEAST_FACTOR)
            self._eased = now
            self._pace.set_rate(self.current, now)
            self._pace.tokens = min(self._pace.tokens, 0.0)

    def _recover(self, now: float) -> None:
        waited = now - self._eased
        if self._factor < 1.0 and waited >= 1.0:
            self._factor = min(1.0, self._factor + waited * 0.5 / RECOVERS_IN)
            self._eased = now
            self._pace.set_rate(self.current, now)


class Account:
    """One source of credentials in one region, at one endpoint."""

    def __init__(self, session: AwsSession, clock: Clock, wire: Wire) -> None:
        self.wire = wire
        self.figures: Figures | None = None
        self._session = session
        self._clock = clock
        self._auto = Limiter(FIRST_RATE, clock.monotonic())
        self._fixed: dict[float, Limiter] = {}
        self._users: dict[str, list[Observer]] = {}
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._said = False

    def limiter(self, rate: float | str) -> Limiter:
        """Return the pace for a fixed rate, or the account's own."""
        if isinstance(rate, str):
            return self._auto
        return self._fixed.setdefault(rate, Limiter(rate, self._clock.monotonic()))

    @property
    def exhausted(self) -> bool:
        """Tell whether the account said that its 24 hours are used up."""
        known = self.figures
        return known is not None and known.max_24h_send >= 0 and known.sent_last_24h >= known.max_24h_send

    def start(self, session: AwsSession) -> None:
        """Ask for the figures now and from then on, by the `session` that was started last. Runs on: the loop."""
        self._session = session
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._keep_fresh(), name="ses account")

    def attach(self, transport: str, observer: Observer) -> None:
        self._users.setdefault(transport, []).append(observer)
        if self.figures is not None:
            self._tell(transport, observer, self.figures)

    def detach(self, transport: str) -> bool:
        """Let go; return whether nobody is left."""
        users = self._users.get(transport)
        if users:
            users.pop(0)
            if not users:
                del self._users[transport]
        return not self._users

    async def refresh(self, at_most_every: float = ASK_AT_MOST_EVERY) -> None:
        """Ask for the figures unless that was done within `at_most_every` seconds. Raises nothing but CancelledError."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._asked_at is not None and now - self._asked_at < at_most_every:
                return
            self._asked_at = now
            try:
                self.figures = await self._session.account()
            except Exception as error:
                self._unknown(error)
                return
            self._said = False
            known = self.figures
            self._auto.set_rate(known.max_send_rate, self._clock.monotonic())
            for transport, observers in self._users.items():
                self._tell(transport, observers[-1], known)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            self._refreshing = None

    @staticmethod
    def _tell(transport: str, observer: Observer, known: Figures) -> None:
        observer.quota(transport, known.max_send_rate, known.max_24h_send, known.sent_last_24h)

    def _unknown(self, error: Exception) -> None:
        if self.figures is None:
            self._auto.set_rate(FALLBACK_RATE, self._clock.monotonic())
        if self._said:
            return
        self._said = True
        for transport, observers in self._users.items():
            observers[-1].trouble(
                "the quota of the SES account cannot be read", error, transport=transport, rate=self._auto.rate,
                remedy="allow ses:GetAccount or ses:GetSendQuota, or set `rate`",
            )  # fmt: skip

    async def _keep_fresh(self) -> None:
        while True:
            await self.refresh(0.0)
            await asyncio.sleep(ASK_AT_MOST_EVERY if self._said or self.exhausted else REFRESH_EVERY)


class Accounts:
    """All accounts of this process, and the one set of connections to SES. Made once, handed to each transport."""

    def __init__(self, clock: Clock, wire: Wire | None = None) -> None:
        self._clock = clock
        self._wire = wire or Wire()
        self._accounts: dict[tuple[str, str, str | None], Account] = {}

    def attach(self, transport: str, session: AwsSession, endpoint_url: str | None, observer: Observer) -> Account:
        """Return the account that `session` speaks for, with `transport` among those who use it."""
        key = (session.region, session.credential_id, endpoint_url)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(session, self._clock, self._wire)
        account.attach(transport, observer)
        return account

    async def detach(self, transport: str, account: Account) -> None:
        if account.detach(transport):
            self._accounts = {key: kept for key, kept in self._accounts.items() if kept is not account}
            await account.close()

    async def close(self) -> None:
        for account in self._accounts.values():
            await account.close()
        self._accounts.clear()
        await self._wire.close()
