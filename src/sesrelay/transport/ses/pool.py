"""Posting over kept connections, and telling what was certainly not sent from what may have been.

Invariant: a request is posted once; nothing here repeats it, follows a redirect or takes a cookie.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sesrelay.transport.net.plainly import plainly
from sesrelay.transport.ses.body import Measured
from sesrelay.transport.ses.connection import Answered, Connection, Leaves, Lost, NotSent, nobody_asks
from sesrelay.transport.ses.opening import Names, opened
from sesrelay.transport.ses.target import Host, Target, target

CONNECT, CONNECT_ALL, READ, TOTAL = 5.0, 15.0, 60.0, 600.0  # seconds; CONNECT_ALL has the name look-up in it
OLDEST = 300.0  # seconds after which a connection in use is given up for a new one, which goes where the name points by then
KEPT = 30.0  # seconds a connection is kept unused; load balancers keep it for 60, and one that closes under a request is a doubt

Way = tuple[Host, Host | None, str | None]
"""The host, the proxy before it, and the CA bundle that vouches for both: what a connection is kept by."""


@dataclass
class Pool:
    """The connections of one loop to all of SES. They are made when they are wanted.

    `close` ends those that wait, and none waits from then on. Units: seconds.
    """

    read_timeout: float = READ
    connect_timeout: float = CONNECT
    _names: Names = field(default_factory=Names)
    _idle: dict[Way, list[Connection]] = field(default_factory=dict)
    _sweeper: asyncio.TimerHandle | None = None
    _tls: dict[str | None, tuple[object, ssl.SSLContext]] = field(default_factory=dict)  # with what tells each bundle from the next
    _targets: dict[str, Target] = field(default_factory=dict)
    _closed: bool = False

    async def post(
        self, url: str, headers: Mapping[str, str], body: Measured, ca_bundle: str | None, leaves: Leaves = nobody_asks
    ) -> Answered | NotSent | Lost:
        """Post `body` once; `headers`: all but its length. `leaves`: see `Connection.post`. Raises nothing but CancelledError."""
        ends = asyncio.get_running_loop().time() + TOTAL
        try:
            to = self._target(url)
            head = _head(to, headers, body.size)
            way = (to.host, to.proxy, ca_bundle)
            connection = self._kept(way)
            context = await self._context(to, ca_bundle) if connection is None else None
        except Exception as error:
            return NotSent(f"the connection cannot be prepared: {plainly(error)}")
        if connection is None:
            try:
                async with asyncio.timeout(CONNECT_ALL):
                    connection = await opened(to, self._names, context, self.connect_timeout)
            except Exception as error:  # whatever it is, nothing of the request has left
                return NotSent(f"cannot connect to {to}: {plainly(error)}")
        try:
            return await connection.post(head, body, self.read_timeout, ends, leaves)
        finally:
            self._keep(way, connection)

    async def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _target(self, url: str) -> Target:
        # Asked of the environment once, not for each request.
        found = self._targets.get(url)
        if found is None:
            found = self._targets[url] = target(url)
        return found

    async def _context(self, to: Target, ca_bundle: str | None) -> ssl.SSLContext | None:
        """Return what TLS begins with on the way there, if it does. A CA bundle that was replaced is read anew. Raises: OSError"""
        if not (to.host.tls or to.first.tls):
            return None
        edition, known = _edition(ca_bundle), self._tls.get(ca_bundle)
        if known is None or edition not in (None, known[0]):
            known = self._tls[ca_bundle] = edition, await asyncio.to_thread(_tls_context, ca_bundle)
        return known[1]

    # --- those that wait ---

    def _kept(self, way: Way) -> Connection | None:
        """Return the connection used last, if one waits that looks alive."""
        idle = self._idle.get(way)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def _keep(self, way: Way, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.since = loop.time()
        if self._closed or not connection.usable or connection.since - connection.born > OLDEST:
            connection.close()
            return
        self._idle.setdefault(way, []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEPT, self._sweep)

    def _sweep(self) -> None:
        """Close what has waited long enough, the first of each list the longest; come again when the next one will have."""
        loop = asyncio.get_running_loop()
        expired = loop.time() - KEPT
        for idle in self._idle.values():
            while idle and (idle[0].since <= expired or not idle[0].usable):
                idle.pop(0).close()
        self._idle = {way: idle for way, idle in self._idle.items() if idle}
        waiting = [idle[0].since for idle in self._idle.values()]
        self._sweeper = loop.call_at(min(waiting) + KEPT, self._sweep) if waiting else None


def _head(to: Target, headers: Mapping[str, str], size: int) -> bytes:
    """Return the head of a request. Raises: ValueError where a header would make two of it"""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not fields.count("\r") == fields.count("\n") == len(headers):
        raise ValueError("a header of the request contains a line break")
    login = "" if to.tunnelled else to.login
    ours = f"User-Agent: sesrelay\r\nAccept-Encoding: identity\r\nContent-Length: {size}\r\n"
    return f"POST {to.form} HTTP/1.1\r\n{fields}{ours}{login}\r\n".encode("latin-1")


def _edition(ca_bundle: str | None) -> object:
    """Return what tells a CA bundle from the one that replaces it; None where it is not there, as while it is being replaced."""
    system = ssl.get_default_verify_paths()
    try:
        found = Path(ca_bundle or system.cafile or system.capath or "/nonexistent").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


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
