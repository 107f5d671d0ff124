"""Posting over kept connections, and telling what was certainly not sent from what may have been.

Invariant: a request is posted once; nothing here repeats it, follows a redirect or takes a cookie.
Invariant: `NotSent` is returned only where the service cannot have the whole request, and a part of one it cannot take: its length
is told at the beginning, and the signature covers all of it. So the end of a body is kept back until the rest is gone, and
only once that end was handed over a failure is a doubt. Closing a connection sends what is still buffered, but not what is kept back.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import aiohttp
import aiohttp.abc
import aiohttp.payload
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import StreamWriter
from yarl import URL

from sesrelay.mail.value import value
from sesrelay.transport.ses.body import Measured

CONNECT, CONNECT_ALL, READ, TOTAL = 5.0, 15.0, 60.0, 600.0  # seconds; CONNECT_ALL has the name look-up in it
OLDEST = 300.0  # seconds after which a connection in use is given up for a new one, which goes where the name points by then
KEPT = 30.0  # seconds a connection is kept unused; load balancers keep it for 60, and one that closes under a request is a doubt
AT_ONCE = 64 * 1024  # octets of a body that are handed to the kernel in one go, which mostly has room for them
END = 1024  # octets of a larger one that are kept back
ANSWER_MAX = 64 * 1024  # octets; real answers have a few hundred


@value(frozen=True, slots=True)
class Answered:
    """Something answered by HTTP; whether it was SES is for the reader of `body` to tell. `whole`: it may have had the whole request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    tls: str | None = None
    whole: bool = True


@value(frozen=True, slots=True)
class NotSent:
    """The request did not leave, as where no connection could be made: certainly not accepted. `cut`: a part of it may have left."""

    why: str
    cut: bool = False


@value(frozen=True, slots=True)
class Lost:
    """The request may have gone out as a whole, and no whole answer came back."""

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
        departure = _Departure()
        upload = _Upload(body, departure)
        try:
            async with session.post(
                target, data=upload, headers=headers, ssl=tls, proxy=proxy, allow_redirects=False, trace_request_ctx=departure
            ) as response:
                version = response.tls_version if isinstance(response, _Response) else None
                answer = Answered(response.status, response.headers, await _limited(response), version, departure.whole)
                if not answer.whole:
                    response.close()  # nobody reads what is still to be sent
                return answer
        except aiohttp.InvalidURL as error:
            return NotSent(f"{error} is no URL")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The kind of error tells nothing: a proxy that fails under CONNECT raises what a service does that fails under the request.
            return Lost(_why(error)) if departure.whole else NotSent(_why(error), departure.begun)

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
    """Whether one request has begun to leave, and whether the end of its body was handed over."""

    begun: bool = False
    whole: bool = False


async def _begun(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams) -> None:
    # aiohttp awaits this before it writes the first byte on a connection that is made, tunnel and TLS included; CONNECT is not traced.
    context.trace_request_ctx.begun = True


class _Upload(aiohttp.payload.Payload):
    """The body of a request. What is small goes at once; of the rest END octets are kept back until all others are gone."""

    def __init__(self, body: Measured, departure: _Departure) -> None:
        super().__init__(body)
        self._body = body
        self._departure = departure

    @property
    def size(self) -> int:
        return self._body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body that is made as it is sent has no text")

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        whole = self._body.whole if self._body.size <= AT_ONCE else None
        end = whole if whole is not None else await self._all_but_the_end(writer)
        if isinstance(writer, StreamWriter) and (writer.transport is None or writer.transport.is_closing()):
            raise ConnectionResetError("the connection was closed before the end of the body was sent")
        self._departure.whole = True
        await writer.write(end)

    async def write_with_length(self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None) -> None:
        await self.write(writer)

    async def _all_but_the_end(self, writer: aiohttp.abc.AbstractStreamWriter) -> bytes:
        """Send all but the last octets, and return these once all others have left this process, as far as that can be told."""
        held: bytes | memoryview = b""
        async for piece in self._body.pieces():
            if held:
                await writer.write(held)
            held = piece
        if len(held) > END:
            await writer.write(held[:-END])
        transport = writer.transport if isinstance(writer, StreamWriter) else None
        if transport is not None and not transport.is_closing():
            # Lets `drain` wait for the last octet; over TLS, until it is encrypted. With 0 asyncio's TLS never goes on.
            transport.set_write_buffer_limits(high=1)
            await writer.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits()
        return bytes(held[-END:])


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
