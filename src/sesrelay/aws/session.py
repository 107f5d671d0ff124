"""One boto3 session for each source of credentials: keys, a profile, a role, or boto3's own chain.

Invariant: boto3 is imported when a session is first used, and never on the loop; nothing here blocks the loop.
Invariant: whoever is asked and does not answer, as a program that hands out credentials may, is given up after PATIENCE, and the
process ends without him.
Invariant: a credential stands in no repr, and no error of ours carries one.

Source: boto3 developer guide, "Credentials"; botocore's refreshable credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sesrelay.aws import number
from sesrelay.aws.account import Account, Reputation, fetch, fetch_reputation
from sesrelay.aws.aside import aside
from sesrelay.aws.endpoint import Endpoint, resolve
from sesrelay.aws.verified import fetch_identities
from sesrelay.seams import Clock

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config as BotocoreConfig

T = TypeVar("T")

AHEAD = 15 * 60  # seconds before expiry at which temporary credentials are renewed
LOOK_EVERY = 5.0  # seconds between looks at the expiry
THREADS = 3  # of a source: its account, its identities and its credentials may be asked for at one time
CONNECT, READ = 5, 20  # seconds
PATIENCE = 60.0  # seconds for all that one question takes; botocore itself waits for a program without end
SILENT = "no answer within {:g} seconds; if a program hangs (credential_process), stop it"


@dataclass(frozen=True, slots=True)
class Source:
    """Where credentials come from: `access_key_id` with its secret, `profile`, `role_arn`, or none: boto3's own chain.

    A role is assumed with the credentials of the profile, the keys or the chain. `fips`, `dual_stack` None: as the AWS
    configuration and the environment say. `endpoint_id`: of a multi-region endpoint.
    """

    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    fips: bool | None = None
    dual_stack: bool | None = None
    endpoint_id: str | None = None

    @property
    def credential_id(self) -> str:
        """Name the source without a secret."""
        return self.role_arn or self.access_key_id or self.profile or "default"


@dataclass(frozen=True, slots=True)
class FrozenCredentials:
    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is kept of a boto3 session. Clients are safe to share between threads; making them is not."""

    credentials: Any
    endpoint: Endpoint
    v1: Any
    v2: Any


class Session:
    """The credentials, the endpoint and the account of one `Source`. Opened at first use."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self.source = source
        self._clock = clock
        self._free = asyncio.Semaphore(THREADS)
        self._opened: _Opened | None = None
        self._opening: asyncio.Task[_Opened] | None = None
        self._frozen: FrozenCredentials | None = None
        self._look_at = 0.0
        self._renewing: asyncio.Task[FrozenCredentials | None] | None = None
        self._reloaded_at: float | None = None
        self.last_listed: tuple[frozenset[str], float] | None = None
        """The verified identities as they were asked for last, and when, by the monotonic clock; None where that failed."""

    def __repr__(self) -> str:
        return f"Session({self.source.credential_id}, {self.source.region})"

    @property
    def region(self) -> str:
        return self.source.region

    @property
    def credential_id(self) -> str:
        return self.source.credential_id

    async def endpoint(self) -> Endpoint:
        opened = self._opened or await self._open()
        return opened.endpoint

    async def credentials(self) -> FrozenCredentials | None:
        """Return credentials that are valid now; those that soon expire are renewed meanwhile, in a thread."""
        opened = self._opened or await self._open()
        now = self._clock.monotonic()
        if self._frozen is not None and now < self._look_at:
            return self._frozen
        renewable = getattr(opened.credentials, "refresh_needed", None)
        if self._frozen is None or (renewable is not None and renewable(refresh_in=60)):
            found = await asyncio.shield(self._renewal(opened))
            if found is None and self._opened is opened:
                self._opened = None  # read the source anew next time: credentials may have been put there meanwhile
            return found
        if renewable is not None and renewable(refresh_in=AHEAD):
            # Where that fails those in hand are still good, and botocore logs why; who needs others gets the error.
            self._renewal(opened)
        self._look_at = now + LOOK_EVERY
        return self._frozen

    async def reload(self) -> None:
        """Read the source anew; calls that come together, as those of many refused requests do, read it once."""
        now = self._clock.monotonic()
        if self._reloaded_at is None or now - self._reloaded_at >= 1.0:
            self._opened = self._opening = self._frozen = self._renewing = None
            self._reloaded_at = now

    async def account(self) -> Account:
        """Ask the account for its limits. Raises: botocore's errors."""
        opened = self._opened or await self._open()
        return await self._in_thread(lambda: fetch(opened.v2, opened.v1))

    async def identities(self) -> frozenset[str]:
        """Ask for the verified addresses and domains, in normal form. Raises: botocore's errors."""
        try:
            opened = self._opened or await self._open()
            found = await self._in_thread(lambda: fetch_identities(opened.v2, opened.v1))
        except Exception:
            self.last_listed = None
            raise
        self.last_listed = found, self._clock.monotonic()
        return found

    async def reputation(self) -> Reputation:
        """Ask what became of the account's mail in 24 hours. Raises: botocore's errors."""
        opened = self._opened or await self._open()
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        return await self._in_thread(lambda: fetch_reputation(opened.v1, now))

    async def account_id(self) -> str | None:
        """Return the number of the AWS account, where role, key or provider tell it. Raises: botocore's errors."""
        known = number.of_arn(self.source.role_arn)
        if known is not None:
            return known
        credentials = await self.credentials()
        told = getattr(self._opened.credentials, "account_id", None) if self._opened else None
        return told or number.of_key(credentials.access_key if credentials else None)

    async def _open(self) -> _Opened:
        """Wait for the opening under way, or begin one. Raises: botocore's errors, TimeoutError"""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open_anew(), name="aws session")
            self._opening.add_done_callback(_noted)
        return await asyncio.shield(self._opening)

    async def _open_anew(self) -> _Opened:
        opened = await self._in_thread(lambda: _open(self.source))
        if self._opening is asyncio.current_task():  # else the source was read anew meanwhile
            self._opened = opened
        return opened

    def _renewal(self, opened: _Opened) -> asyncio.Task[FrozenCredentials | None]:
        """Return the renewal under way, or begin one.

        botocore lets one caller ask at a time, and each would wait out a silence anew.
        """
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew(opened), name="aws credentials")
            self._renewing.add_done_callback(_noted)
        return self._renewing

    async def _renew(self, opened: _Opened) -> FrozenCredentials | None:
        try:
            found = await self._in_thread(lambda: _freeze(opened.credentials))
        except TimeoutError:
            if self._opened is opened:
                self._opened = None  # botocore lets nobody else ask while one waits
            raise
        if self._opened is opened:  # else the source was read anew meanwhile
            self._frozen, self._look_at = found, self._clock.monotonic() + LOOK_EVERY
        return found

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Raises: TimeoutError, whatever `work` raises"""
        try:
            async with asyncio.timeout(PATIENCE) as patience:
                await self._free.acquire()
                return await aside(work, self._free.release)
        except TimeoutError:
            if patience.expired():
                raise TimeoutError(SILENT.format(PATIENCE)) from None
            raise


class Sessions:
    """All sessions of this process, one a source. Made once; they outlive a reload of the configuration."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[Source, Session] = {}

    def get(self, source: Source) -> Session:
        """Return the session of `source`, the same one each time."""
        if source not in self._sessions:
            self._sessions[source] = Session(source, self._clock)
        return self._sessions[source]

    def retain(self, sources: Iterable[Source]) -> None:
        """Forget the sessions of all other sources: a reload has left them behind."""
        wanted = frozenset(sources)
        self._sessions = {source: session for source, session in self._sessions.items() if source in wanted}


def _noted(asking: asyncio.Task[Any]) -> None:
    """Take note of how it ended, so that asyncio does not complain where nobody waited for it."""
    if not asking.cancelled():
        asking.exception()


def _open(source: Source) -> _Opened:
    session, config = boto_session(source), client_config(source)
    v1 = session.client("ses", endpoint_url=source.endpoint_url, config=config)
    v2 = session.client("sesv2", endpoint_url=source.endpoint_url, config=config)
    at = resolve(session._session, v1, v2, source.endpoint_id, own=bool(source.endpoint_url))
    return _Opened(session.get_credentials(), at, v1, v2)


def client_config(source: Source) -> BotocoreConfig:
    """Return how clients are made. One call is one request: botocore's default posts a throttled or reset one three times."""
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        retries={"total_max_attempts": 1}, connect_timeout=CONNECT, read_timeout=READ, tcp_keepalive=True,
        use_fips_endpoint=source.fips, use_dualstack_endpoint=source.dual_stack,
    )  # fmt: skip


def boto_session(source: Source) -> boto3.Session:
    """Return boto3's session for a source of credentials; nobody is asked yet, but for a role. Raises: botocore's errors"""
    import boto3  # noqa: PLC0415 - 100 ms and 10 MiB, wanted only where an SES route is
    from botocore.session import Session as BotocoreSession  # noqa: PLC0415

    inner = BotocoreSession(profile=source.profile)
    session = boto3.Session(source.access_key_id, source.secret_access_key, region_name=source.region, botocore_session=inner)
    _trim(session.get_credentials())
    if source.role_arn:
        role = _role(session.client("sts", config=client_config(source)), source)
        inner = BotocoreSession(profile=source.profile)
        inner.register_component("credential_provider", role)
        session = boto3.Session(region_name=source.region, botocore_session=inner)
    return session


def _trim(credentials: Any) -> None:
    """Take blanks off keys that stand somewhere: no key has any, and `echo KEY | base64` leaves a line end in the environment, with
    which no request can be made, and the error shows the token.
    """
    from botocore.credentials import Credentials  # noqa: PLC0415

    if type(credentials) is Credentials:  # those that are refreshed come from programs
        credentials.access_key, credentials.secret_key = credentials.access_key.strip(), credentials.secret_key.strip()
        credentials.token = credentials.token and credentials.token.strip()


def _role(sts: Any, source: Source) -> Any:
    """Return a provider whose credentials STS gives for the role, and gives anew as they expire."""
    from botocore.credentials import DeferredRefreshableCredentials  # noqa: PLC0415

    request: dict[str, Any] = {"RoleArn": source.role_arn, "RoleSessionName": "sesrelay"}
    if source.external_id:
        request["ExternalId"] = source.external_id

    def assume() -> dict[str, str]:
        given = sts.assume_role(**request)["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    class Role:
        def load_credentials(self) -> DeferredRefreshableCredentials:
            return renewed

    renewed = DeferredRefreshableCredentials(refresh_using=assume, method="sts-assume-role")
    return Role()


def _freeze(credentials: Any) -> FrozenCredentials | None:
    """Return what the source has now. Blocks: a renewal asks the network."""
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    if frozen is None or not frozen.access_key:
        return None
    return FrozenCredentials(frozen.access_key, frozen.secret_key, frozen.token)
