"""What tests of the SES transport share: a paper session, an observer that remembers, and a transport at a stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from batches import HELLO, Bytes, batch
from fakes import FakeClock
from sesrelay.mail.delivery import DeliveryId
from sesrelay.mail.outcome import Outcome
from sesrelay.policy.reputation import AccountStanding
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.ses.pool import Pool
from sesrelay.transport.ses.seam import SesOptions
from sesrelay.transport.ses.transport import SesTransport

KEY, SECRET = "AKIASTANDIN", "canary-secret/+of the stand-in"


@dataclass(frozen=True)
class Keys:
    access_key: str = KEY
    secret_key: str = SECRET
    token: str | None = None


@dataclass(frozen=True)
class At:
    url: str
    region: str = "us-east-1"
    service: str = "ses"
    ca_bundle: str | None = None
    region_set: str | None = None

    @property
    def v2_url(self) -> str:
        return self.url


@dataclass
class Figures:
    max_send_rate: float = 14.0
    max_24h_send: float = 50_000.0
    sent_last_24h: float = 0.0
    sandbox: bool | None = False


@dataclass
class Standing:
    attempts: int = 0
    bounces: int = 0
    complaints: int = 0
    rejects: int = 0


@dataclass
class PaperSession:
    """Implements `sesrelay.transport.ses.seam.AwsSession` from values. `after_reload`: the credentials that come then."""

    url: str
    keys: Keys | Exception | None = field(default_factory=Keys)
    after_reload: Keys | None = None
    figures: Figures | Exception = field(default_factory=Figures)
    region: str = "us-east-1"
    credential_id: str = KEY
    ca_bundle: str | None = None
    standing: Standing | Exception = field(default_factory=Standing)
    account_number: str | None = None
    last_listed: tuple[frozenset[str], float] | None = None
    reloads: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self._at = At(self.url, ca_bundle=self.ca_bundle)

    async def endpoint(self) -> At:
        return self._at

    async def credentials(self) -> Keys | None:
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys

    async def reload(self) -> None:
        self.reloads += 1
        self.keys = self.after_reload or self.keys

    async def account(self) -> Figures:
        self.asked += 1
        if isinstance(self.figures, Exception):
            raise self.figures
        return self.figures

    async def reputation(self) -> Standing:
        if isinstance(self.standing, Exception):
            raise self.standing
        return self.standing

    async def account_id(self) -> str | None:
        return self.account_number


class Remembers:
    """Implements what sending uses of `sesrelay.seams.Observer`."""

    def __init__(self) -> None:
        self.quotas: list[tuple[str, float, float, float]] = []
        self.standings: list[tuple[str, AccountStanding]] = []
        self.notices: list[tuple[str, dict[str, object]]] = []
        self.troubles: list[tuple[str, BaseException | None, dict[str, object]]] = []

    def quota(self, transport: str, rate: float, max_24h: float, sent_24h: float) -> None:
        self.quotas.append((transport, rate, max_24h, sent_24h))

    def account(self, transport: str, standing: AccountStanding) -> None:
        self.standings.append((transport, standing))

    def notice(self, what: str, **facts: object) -> None:
        self.notices.append((what, facts))

    def trouble(self, what: str, error: BaseException | None = None, **facts: object) -> None:
        self.troubles.append((what, error, facts))


@dataclass
class World:
    """A transport, and all that it was given."""

    transport: SesTransport
    session: PaperSession
    observer: Remembers
    clock: Any
    accounts: Accounts

    async def send(self, *to: str, content: bytes = HELLO, **envelope: Any) -> list[Outcome]:
        """Deliver one batch and return the outcomes in the order of `to`."""
        made = batch(*to, **envelope)
        found: Mapping[DeliveryId, Outcome] = await self.transport.deliver(made, Bytes(content))
        assert set(found) == {delivery.id for delivery in made.deliveries}
        return [found[delivery.id] for delivery in made.deliveries]


@asynccontextmanager
async def world(url: str, *, pool: Pool | None = None, session: PaperSession | None = None, clock: Any = None, **options: Any):
    """Yield a World whose transport sends to `url`."""
    import time

    if clock is None:
        clock = FakeClock(now=time.time())
    session = session or PaperSession(url)
    observer = Remembers()
    accounts = Accounts(clock, pool)
    made: Any = observer
    transport = SesTransport("ses-main", SesOptions("us-east-1", endpoint_url=url, **options), session, accounts, clock, made)
    try:
        yield World(transport, session, observer, clock, accounts)
    finally:
        await transport.close()
        await accounts.close()


def message(*fields: str, body: bytes = b"Hello.\r\n") -> bytes:
    """Return a message with these header fields, and a Date."""
    lines = (*fields, "Date: Sat, 28 Nov 2026 10:00:00 +0000")
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def addresses(n: int, start: int = 0) -> Sequence[str]:
    return [f"r{i}@example.org" for i in range(start, start + n)]
