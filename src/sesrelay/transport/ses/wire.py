"""Posting over kept connections, and telling what was certainly not sent from what may have been.

Invariant: a request is posted once; nothing here repeats it, follows a redirect or takes a cookie.
Invariant: `NotSent` is returned only where no byte of the request can have reached the service.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from sesrelay.mail.value import value
from sesrelay.transport.ses.body import Measured

CONNECT, CONNECT_ALL, READ, TOTAL = 5.0, 15.0, 60.0, 600.0  # seconds; CONNECT_ALL has the name look-up in it
OLDEST = 300.0  # seconds after which a connection in use is given up for a new one, which goes where the name points by then
KEPT = 30.0  # seconds a connection is kept unused; load balancers keep it for 60, and one that closes under a request is a doubt
ANSWER_MAX = 64 * 1024  # octets; real answers have a few hundred


@value(frozen=True, slots=True)
class Answered:
    """Something answered by HTTP; whether it was SES is for the reader of `body` to tell."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    tls: str | None = None


@value(frozen=True, slots=True)
class NotSent:
    """Nothing of the request left, as where no connection could be made: certainly not accepted."""

    why: str


@value(frozen=True, slots=True)
class Lost:
    """The request went out, at least in part, and no whole answer came back."""

    why: str


@dataclass
class Wire:
    """One client session in the loop for all of SES. Made at first use; `close` ends it.

    Units: seconds.
    """

    read_timeout: float = READ
    connect_timeout: float = CONNECT
    _session: aiohttp.ClientSession | None = None
    _tls: dict[str | None, ssl.SSLContext] = field(default_factory=dict)
    _targets: dict[str, tuple[URL, URL | None]] = field(default_factory=dict)

    async def post(self, url: str, headers: Mapping[str, str], body: Measured, ca_bundle: str | None) -> Answered | NotSent | Lost:
        """Post `body` once. Raises nothing but CancelledError."""
        try:
            target, proxy = self._target(url)
            session, tls = await self._ready(url, ca_bundle)
        except (OSError, ValueError) as error:
            return NotSent(f"the connection cannot be prepared: {error}")
        data: bytes | AsyncIterator[bytes]
        if body.whole is not None:
            data = body.whole
        else:
            data, headers = body.pieces(), {**headers, "Content-Length": str(body.size)}
        departure = _Departure()
        try:
            async with session.post(
                target, data=data, headers=headers, ssl=tls, proxy=proxy, allow_redirects=False, trace_request_ctx=departure
            ) as response:
                version = response.tls_version if isinstance(response, _Response) else None
                return Answered(response.status, response.headers, await _limited(response), version)
        except aiohttp.InvalidURL as error:
            return NotSent(f"{error} is no URL")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The kind of error tells nothing: a proxy that fails under CONNECT raises what a service does that fails under the request.
            return Lost(_why(error)) if departure.begun else NotSent(_why(error))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ready(self, url: str, ca_bundle: str | None) -> tuple[aiohttp.ClientSession, ssl.SSLContext | bool]:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT, socket_factory=_socket)
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_begun)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trace_configs=[trace],
                response_class=_Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                # sock_read runs from the last byte sent: a slow line has until `total` to upload.
                timeout=aiohttp.ClientTimeout(
                    total=TOTAL, connect=CONNECT_ALL, sock_connect=self.connect_timeout, sock_read=self.read_timeout
                ),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                headers={"User-Agent": "sesrelay"},
            )
        if not url.startswith("https:"):
            return self._session, True
        if ca_bundle not in self._tls:
            self._tls[ca_bundle] = await asyncio.to_thread(_tls_context, ca_bundle)
        return self._session, self._tls[ca_bundle]

    def _target(self, url: str) -> tuple[URL, URL | None]:
        # Asked of the environment once: aiohttp's trust_env reads it, and .netrc in a thread, for each request.
        if url not in self._targets:
            parts = urlsplit(url)
            proxy = None if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies().get(parts.scheme)
            # A proxy is given the URL as it stands, and one without a path is none.
            self._targets[url] = (URL(url if parts.path else url + "/"), _proxy(proxy) if proxy else None)
        return self._targets[url]


@dataclass(slots=True)
class _Departure:
    """Whether one request has begun to leave."""

    begun: bool = False


async def _begun(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams) -> None:
    # aiohttp awaits this before it writes the first byte on a connection that is made, tunnel and TLS included; CONNECT is not traced.
    context.trace_request_ctx.begun = True


def _proxy(named: str) -> URL:
    # A scheme is often left out, and botocore's clients, which go the same way, put this one.
    return URL(named if "://" in named else "http://" + named.removeprefix("//"))


_BORN: WeakKeyDictionary[ResponseHandler, float] = WeakKeyDictionary()
"""When each connection had its first answer; a busy one would else outlive every change of the name's addresses."""


class _Response(aiohttp.ClientResponse):
    """Notes the TLS version while the connection is at hand: a short answer has given it back when `post` returns."""

    tls_version: str | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol, now = connection.protocol, asyncio.get_running_loop().time()
        if protocol is not None and now - _BORN.setdefault(protocol, now) > OLDEST:
            protocol.force_close()  # after this answer
        secured = connection.transport.get_extra_info("ssl_object") if connection.transport is not None else None
        self.tls_version = secured.version() if secured is not None else None
        return await super().start(connection)


def _socket(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    family, kind, proto, _, _ = info
    made = socket.socket(family=family, type=kind, proto=proto)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    if ca_bundle is not None:
        if not Path(ca_bundle).is_dir():
            return ssl.create_default_context(cafile=ca_bundle)
        return ssl.create_default_context(capath=ca_bundle)
    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    if not context.cert_store_stats()["x509_ca"] and not (folder and any(Path(folder).iterdir())):
        # A machine without CA certificates of its own: those that botocore carries.
        from botocore.httpsession import get_cert_path  # noqa: PLC0415

        context.load_verify_locations(get_cert_path(True))
    return context


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    if (response.content_length or ANSWER_MAX) < ANSWER_MAX:
        return await response.read()
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > ANSWER_MAX:
            response.close()
            break
    return b"".join(parts)


def _why(error: BaseException) -> str:
    text = str(error).strip()
    name = type(error).__name__
    return f"{name}: {text}" if text else name
