"""Getting a domain's MTA-STS policy: announced in the DNS, fetched over HTTPS, kept for as long as it says.

Invariant: a policy that is kept and has not expired holds, whatever the DNS or the policy's host say or fail to say.
Invariant: one fetch at a time for a domain, none within five minutes of one that failed, and none of the same id within a minute.
Invariant: a record of which no name server says anything is looked for by each message, but waited for by few.

Source: RFC 8461 §3.3 (fetching: no redirects, verified, `text/plain`), §5.1 (what holds when), §10.2 (what an attacker could do).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from dns.rdatatype import RdataType

from sesrelay.mail.outcome import Deferred, Failed
from sesrelay.seams import Clock
from sesrelay.transport.client.dead import DeadHosts
from sesrelay.transport.exchangers import addresses
from sesrelay.transport.exchangers.mx import Absent, MailHosts, Unknown
from sesrelay.transport.net.plainly import plainly
from sesrelay.transport.tls.mta_sts import POLICY_MAX, WELL_KNOWN, Policy, PolicyError, parse, record_id
from sesrelay.transport.tls.mta_sts_cache import Kept, PolicyCache
from sesrelay.transport.tls.security import Fault

TIMEOUT = 30.0  # seconds for a fetch; RFC 8461 §3.3 suggests a minute at most
BACKOFF = 300.0  # seconds after a fetch that failed, §3.3
AGAIN = 60.0  # seconds for which a policy holds under its id, even where its max_age is 0: it would be fetched for each message
PATIENCE = 2.0  # seconds that mail waits for a record that was not told of lately, or for news of a policy that holds anyway
REFRESH = 86_400.0  # seconds after which a policy is fetched anew, even under the same id: §3.3 asks not to wait for the end


@dataclass(frozen=True, slots=True)
class Found:
    """The policy that holds, if any; and what was wrong with getting it, for reports."""

    policy: Policy | None
    fault: Fault | None = None
    text: str = ""


NOTHING = Found(None)


class _NoPolicy(Exception):
    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Policies:
    """Finds policies. `context` verifies their hosts; `port` is another one than 443 in tests only."""

    def __init__(
        self, dns: MailHosts, clock: Clock, cache: PolicyCache, context: ssl.SSLContext, port: int, *, allow_private: bool
    ) -> None:
        self._dns = dns
        self._clock = clock
        self._cache = cache
        self._context = context
        self._port = port
        self._allow_private = allow_private
        self._lately: dict[str, tuple[float, str, Found]] = {}  # until when, of which id, what the last fetch gave
        self._silent = DeadHosts(clock, BACKOFF)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # each for as long as somebody has or awaits it

    async def of(self, domain: str) -> Found:
        """Return the policy of a normalised domain."""
        kept = self._cache.get(domain, self._clock.wall())
        announced = await self._announced(domain, PATIENCE if kept or domain in self._silent else None)
        if announced is None:
            return Found(kept.policy) if kept else NOTHING
        if kept is not None and self._fresh(kept, announced):
            return Found(kept.policy)
        lock = self._locks.setdefault(domain, asyncio.Lock())
        async with lock:
            return await self._anew(domain, announced)

    def _fresh(self, kept: Kept, announced: str) -> bool:
        age = self._clock.wall() - kept.fetched
        return kept.id == announced and 0 <= age < min(REFRESH, kept.policy.max_age / 2)

    async def _announced(self, domain: str, patience: float | None) -> str | None:
        """Return the id of the policy that the domain has now; None where it has none, or nobody says in time."""
        try:
            async with asyncio.timeout(patience):
                answer = await self._dns.answer(f"_mta-sts.{domain}", RdataType.TXT)
        except (Absent, TimeoutError):
            return None
        except Unknown:
            self._silent.mark(domain)
            return None
        return record_id(b"".join(record.strings).decode("latin-1") for record in answer.records)

    async def _anew(self, domain: str, announced: str) -> Found:
        """Fetch, unless somebody has meanwhile, or it failed just now; what is kept holds where there is nothing newer."""
        now = self._clock.wall()
        kept = self._cache.get(domain, now)
        if kept is not None and self._fresh(kept, announced):
            return Found(kept.policy)
        until, last_id, last = self._lately.get(domain, (0.0, "", NOTHING))
        if self._clock.monotonic() < until and last_id == announced:
            return Found(kept.policy if kept else last.policy, last.fault, last.text)
        try:
            found, enough = Found(await self._fetch(domain)), AGAIN
        except _NoPolicy as error:
            found, enough = Found(None, error.fault, str(error)), BACKOFF
        if len(self._lately) > 1000:
            self._lately.clear()
        self._lately[domain] = self._clock.monotonic() + enough, announced, found
        if found.policy is None:
            return Found(kept.policy if kept else None, found.fault, found.text)
        await self._cache.put(domain, Kept(announced, now, found.policy))
        return found

    async def _fetch(self, domain: str) -> Policy:
        host = f"mta-sts.{domain}"
        port = "" if self._port == 443 else f":{self._port}"
        connector = aiohttp.TCPConnector(resolver=_Guarded(self._dns, self._allow_private), ssl=self._context, force_close=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.get(f"https://{host}{port}{WELL_KNOWN}", allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise _NoPolicy(Fault.STS_POLICY_FETCH_ERROR, f"{host} answered {response.status}")
                if response.content_type != "text/plain":
                    raise _NoPolicy(Fault.STS_POLICY_INVALID, f"{host} sent {response.content_type}, not text/plain")
                return parse((await _body(response, host)).decode("utf-8"))
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise _NoPolicy(Fault.STS_WEBPKI_INVALID, f"no TLS with {host}: {error}") from error
        except (PolicyError, UnicodeDecodeError) as error:
            raise _NoPolicy(Fault.STS_POLICY_INVALID, f"the policy at {host} is invalid: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _NoPolicy(Fault.STS_POLICY_FETCH_ERROR, f"cannot fetch the policy from {host}: {plainly(error)}") from error


async def _body(response: aiohttp.ClientResponse, host: str) -> bytes:
    data = b""
    async for piece in response.content.iter_chunked(8192):
        data += piece
        if len(data) > POLICY_MAX:
            raise _NoPolicy(Fault.STS_POLICY_INVALID, f"{host} sent more than {POLICY_MAX} octets")
    return data


class _Guarded(AbstractResolver):
    """Looks names up as mail hosts are, and lets nobody send us to places where strangers have no business."""

    def __init__(self, dns: MailHosts, allow_private: bool) -> None:
        self._dns = dns
        self._allow_private = allow_private

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        found = await self._dns.addresses(host)
        if isinstance(found, Failed | Deferred):
            raise OSError(found.reply.text)
        allowed = [one for one in found if not addresses.refusal(one, allow_private=self._allow_private)]
        if not allowed:
            raise OSError(f"{host} has no address to which connections are allowed")
        return [
            ResolveResult(
                hostname=host, host=one, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
            )
            for one in allowed
        ]  # fmt: skip

    async def close(self) -> None:
        """Do nothing: the look-ups are the transport's."""
