"""One source of credentials in one region: its connections, its account's ledger, and the asking that keeps it true.

It outlives a reload: new transports attach to the accounts of the old ones before those let go. Once it is known to which
AWS account the credentials belong, all sources of that account go by one ledger.

Source: Amazon SES developer guide, "Sending quotas" (each of the figures at most once a second), "Reputation metrics".
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from sesrelay.policy import reputation
from sesrelay.policy.quota import KEPT, RESERVE_REMEDY
from sesrelay.policy.reputation import AccountStanding
from sesrelay.policy.ses_meaning import about_asking
from sesrelay.policy.ses_words import SANDBOX_LIMITS
from sesrelay.seams import Clock, Observer
from sesrelay.transport.ses.ledger import FALLBACK_RATE, Ledger, Way
from sesrelay.transport.ses.pool import Pool
from sesrelay.transport.ses.seam import AwsSession, Figures

REFRESH_EVERY = 120.0  # seconds
ASK_AT_MOST_EVERY = 60.0  # seconds, where the quota is used up or the last question failed
TOGETHER = 10.0  # seconds within which the questions of several sources of one account are one
REPUTATION_EVERY = 900.0  # seconds; the account adds it up for as many


class Account:
    """One source of credentials in one region, at one endpoint."""

    def __init__(self, session: AwsSession, clock: Clock, pool: Pool, ledger: Ledger, endpoint_url: str | None) -> None:
        self.pool = pool
        self.ledger = ledger
        self.endpoint_url = endpoint_url
        self.number: str | None = None
        self._session = session
        self._clock = clock
        self._users: dict[str, list[Observer]] = {}
        self._heard: tuple[Ledger, int] | None = None  # which of the ledger's answers the users know
        self._refreshing: asyncio.Task[None] | None = None
        self._unreadable = False
        self._refused_at: float | None = None
        self._told: set[str] = set()
        self._reputation_at: float | None = None

    def start(self, session: AwsSession, accounts: Accounts) -> None:
        """Ask for the figures now and from then on, by the `session` that was started last. Runs on: the loop."""
        self._session = session
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._keep_fresh(accounts), name="ses account")

    def attach(self, transport: str, observer: Observer) -> None:
        self._users.setdefault(transport, []).append(observer)
        if self.ledger.figures is not None:
            self._tell(transport, observer, self.ledger.figures)

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
        ledger = self.ledger
        async with ledger.asking:
            now = self._clock.monotonic()
            asked = [at for at in (ledger.told_at, self._refused_at) if at is not None]
            if not asked or now - max(asked) >= at_most_every:
                spent = ledger.window.spent
                try:
                    figures = await self._session.account()
                except Exception as error:
                    self._refused_at = now  # which says nothing of other sources of this account
                    self._unknown(error)
                    return
                self._unreadable = False
                ledger.told(figures, spent)
                await self._refresh_reputation(now)
            if ledger.figures is not None and self._heard != (ledger, ledger.answers):
                self._heard = (ledger, ledger.answers)
                self._notice(ledger.figures)
                for transport, observers in self._users.items():
                    self._tell(transport, observers[-1], ledger.figures)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            self._refreshing = None

    async def _refresh_reputation(self, now: float) -> None:
        if self._reputation_at is not None and now - self._reputation_at < REPUTATION_EVERY:
            return
        self._reputation_at = now
        try:
            self.ledger.reputation = await self._session.reputation()
            self._told.discard("reputation")
        except Exception as error:
            self._say_once(
                "reputation",
                "the statistics of the SES account cannot be read",
                error=repr(error),
                remedy=about_asking(str(error), "allow ses:GetSendStatistics"),
            )

    def _tell(self, transport: str, observer: Observer, known: Figures) -> None:
        observer.quota(transport, known.max_send_rate, known.max_24h_send, known.sent_last_24h)
        observer.account(transport, self.standing())

    def standing(self) -> AccountStanding:
        """Return how the account stands as far as it has told."""
        ledger, known, fame = self.ledger, self.ledger.figures, self.ledger.reputation
        return AccountStanding(
            region=self._session.region,
            credential_id=self._session.credential_id,
            number=self.number,
            rate=known.max_send_rate if known else None,
            max_24h=known.max_24h_send if known else None,
            sent_24h=ledger.window.sent if known else None,
            sandbox=known.sandbox if known else None,
            reserving=ledger.reserving,
            seconds_left=ledger.window.seconds_left(self._clock.monotonic()),
            attempts_24h=fame.attempts if fame else None,
            bounces_24h=fame.bounces if fame else None,
            complaints_24h=fame.complaints if fame else None,
            rejects_24h=fame.rejects if fame else None,
        )

    def _notice(self, known: Figures) -> None:
        """Say what an operator has to know, once each time that it becomes true."""
        if known.sandbox:
            self._say_once("sandbox", "the SES account is in the sandbox", remedy=f"it allows {SANDBOX_LIMITS}")
        else:
            self._told.discard("sandbox")
        if self.ledger.reserving:
            self.reserve_begun()  # where it is the SMTP endpoint's mail alone that waits
        else:
            self._told.discard("reserve")
        fame = self.ledger.reputation
        if fame is None:
            return
        for rate in reputation.rates(fame.attempts, fame.bounces, fame.complaints):
            if rate.bad:
                self._say_once(
                    rate.name,
                    f"the {rate.name} rate of the SES account is above AWS's threshold",
                    rate=rate.shown,
                    remedy=rate.remedy,
                )
            else:
                self._told.discard(rate.name)

    def reserve_begun(self) -> None:
        """Note that mail which is not urgent has to wait, for what is left of the 24 hours is kept."""
        if "reserve" in self._told:
            return
        for transport, observers in self._users.items():
            observers[-1].account(transport, self.standing())
        self._say_once("reserve", KEPT, remedy=RESERVE_REMEDY)

    def _say_once(self, key: str, what: str, **facts: object) -> None:
        if key in self._told:
            return
        self._told.add(key)
        for transport, observers in self._users.items():
            observers[-1].notice(what, transport=transport, region=self._session.region, **facts)

    def _unknown(self, error: Exception) -> None:
        if self.ledger.figures is None:
            self.ledger.set_rate(FALLBACK_RATE, climbs=True)
        if self._unreadable:
            return
        self._unreadable = True
        for transport, observers in self._users.items():
            observers[-1].trouble(
                "the quota of the SES account cannot be read", error, transport=transport, rate=FALLBACK_RATE,
                remedy=about_asking(str(error), "allow ses:GetAccount or ses:GetSendQuota, or set `rate`"),
            )  # fmt: skip

    async def _keep_fresh(self, accounts: Accounts) -> None:
        await accounts.merge(self, self._session)
        while True:
            await self.refresh(TOGETHER)
            ledger = self.ledger
            await asyncio.sleep(ASK_AT_MOST_EVERY if self._unreadable or ledger.exhausted or ledger.reserving else REFRESH_EVERY)


class Accounts:
    """All accounts of this process, and the one set of connections to SES. Made once, handed to each transport."""

    def __init__(self, clock: Clock, pool: Pool | None = None) -> None:
        self._clock = clock
        self._pool = pool or Pool()
        self._accounts: dict[tuple[str, str, str | None], Account] = {}
        self._ledgers: dict[tuple[str, str], Ledger] = {}  # by region and account number or key

    def attach(self, transport: str, session: AwsSession, endpoint_url: str | None, observer: Observer) -> Account:
        """Return the account that `session` speaks for, with `transport` among those who use it."""
        key = (session.region, session.credential_id, endpoint_url)
        account = self._accounts.get(key)
        if account is None:
            ledger = Ledger(self._clock)
            account = self._accounts[key] = Account(session, self._clock, self._pool, ledger, endpoint_url)
        account.attach(transport, observer)
        return account

    def ledger(self, region: str, number_or_key: str) -> Ledger:
        """Return the ledger of an AWS account in a region, for those who send through it by other ways than its API; without a
        region that of a relay which is not SES.
        """
        known = self._ledgers.get((region, number_or_key))
        if known is None:
            known = self._ledgers[region, number_or_key] = Ledger(self._clock, counts=bool(region))
            known.set_rate(FALLBACK_RATE, climbs=True)
        return known

    def retain(self, ways: Collection[Way]) -> None:
        """Forget the paces of ways that no transport of the configuration goes any more."""
        for ledger in (*self._ledgers.values(), *(account.ledger for account in self._accounts.values())):
            ledger.retain(ways)

    async def merge(self, account: Account, session: AwsSession) -> None:
        """Let `account` go by the ledger of its AWS account, where the credentials tell which that is."""
        try:
            number = await session.account_id()
        except Exception:
            return  # who sends will meet the same, and says so
        account.number = number
        name = number or session.credential_id
        if number is None and account.endpoint_url is not None:
            return  # a key that tells nothing, at a place of its own
        known = self._ledgers.setdefault((session.region, name), account.ledger)
        if known is not account.ledger:
            account.ledger = known

    async def detach(self, transport: str, account: Account) -> None:
        if account.detach(transport):
            self._accounts = {key: kept for key, kept in self._accounts.items() if kept is not account}
            await account.close()

    async def close(self) -> None:
        for account in self._accounts.values():
            await account.close()
        self._accounts.clear()
        self._ledgers.clear()
        await self._pool.close()
