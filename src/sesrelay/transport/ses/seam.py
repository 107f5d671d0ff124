"""What sending wants of an AWS session, and the options of one SES transport.

Invariant: nothing here knows boto3; the session comes from another room and meets this one only where all is wired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


class Credentials(Protocol):
    """Frozen: a refresh hands out new ones. `token` belongs to temporary keys."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class Endpoint(Protocol):
    """Where calls go and what they are signed for. `ca_bundle`: a file of CA certificates instead of the system's.

    `v2_url`: where calls of v2 go. `region_set`: the regions that these are signed for, where they are several.
    """

    @property
    def url(self) -> str: ...
    @property
    def v2_url(self) -> str: ...
    @property
    def region_set(self) -> str | None: ...
    @property
    def region(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def ca_bundle(self) -> str | None: ...


class Figures(Protocol):
    """What the account may send. Units: recipients a second; recipients in 24 hours, -1: unlimited.

    `sandbox` None: not told.
    """

    @property
    def max_send_rate(self) -> float: ...
    @property
    def max_24h_send(self) -> float: ...
    @property
    def sent_last_24h(self) -> float: ...
    @property
    def sandbox(self) -> bool | None: ...


class Reputation(Protocol):
    """What became of the account's mail in the last 24 hours: numbers of messages."""

    @property
    def attempts(self) -> int: ...
    @property
    def bounces(self) -> int: ...
    @property
    def complaints(self) -> int: ...
    @property
    def rejects(self) -> int: ...


class AwsSession(Protocol):
    """One source of credentials in one region. No method blocks the loop; each may raise what the vendor raises."""

    @property
    def region(self) -> str: ...

    @property
    def credential_id(self) -> str:
        """Name the source without a secret: the access key's id, the profile, the role, or `default`."""

    async def endpoint(self) -> Endpoint: ...

    async def credentials(self) -> Credentials | None:
        """Return credentials that are valid now, or None where the source has none."""

    async def reload(self) -> None:
        """Read the source anew, because the credentials in hand were refused."""

    async def identities(self) -> frozenset[str]:
        """Ask for the verified addresses and domains, in normal form. Raises: whatever kept the answer away."""

    @property
    def last_listed(self) -> tuple[frozenset[str], float] | None:
        """Return what `identities` told last, and when, by the monotonic clock; None where it could not, or was not asked yet."""

    async def account(self) -> Figures:
        """Ask the account for its limits, once. Raises: whatever kept the answer away."""

    async def reputation(self) -> Reputation:
        """Ask what became of the account's mail, once. Raises: whatever kept the answer away."""

    async def account_id(self) -> str | None:
        """Return the number of the AWS account, where the credentials tell it. Raises: whatever kept them away."""


@dataclass(frozen=True, slots=True)
class SesOptions:
    """Units: `rate` recipients a second, or `auto`: the account's; `share`, `daily_reserve` parts of 1; `failover_after` seconds.

    `trusted_headers`: X-SES-* names that applications may set. `local_domains`: envelope senders there are stood in for
    by the header From.
    """

    region: str
    endpoint_url: str | None = None
    api: Literal["auto", "v1", "v2"] = "auto"
    configuration_set: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    source_arn: str | None = None
    from_arn: str | None = None
    return_path_arn: str | None = None
    tenant: str | None = None
    endpoint_id: str | None = None
    contact_list: str | None = None
    topic: str | None = None
    feedback_forwarding: str | None = None
    share: float = 1.0
    daily_reserve: float = 0.1
    rate: float | Literal["auto"] = "auto"
    trusted_headers: tuple[str, ...] = ()
    thread_ids: bool = True
    rewrite_from: str | None = None
    preflight: bool = False
    failover_after: float = 600.0
    local_domains: frozenset[str] = frozenset()
