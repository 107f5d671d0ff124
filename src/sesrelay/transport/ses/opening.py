"""Opening a connection to SES: the name, one of its addresses that answers, a proxy where there is one, and TLS.

Invariant: before a connection is returned nothing of a request has left.

Source: RFC 9110 §9.3.6 (CONNECT).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from functools import partial

from sesrelay.transport.net.reach import interleaved, reach, resolve
from sesrelay.transport.ses.connection import Connection
from sesrelay.transport.ses.target import Host, Target

NAME_KEPT = 10.0  # seconds that the addresses of a name are used for
_TUNNEL = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_TUNNEL_MAX = 16 * 1024  # octets of a proxy's answer


class Names:
    """Addresses by name: those who connect at one time ask once, and what was found is used for some seconds.

    Each who connects begins with another of them: SES's names have several, and the system sorts them alike each time.
    """

    def __init__(self) -> None:
        self._known: dict[Host, asyncio.Future[list[str]]] = {}
        self._turns: dict[Host, int] = {}

    async def addresses(self, host: Host) -> list[str]:
        """Return them in the order in which to try them. Raises: OSError"""
        asked = self._known.get(host)
        if asked is None:
            asked = self._known[host] = asyncio.ensure_future(resolve(host.name, host.port))
            asked.add_done_callback(partial(self._found, host))
        found = await asyncio.shield(asked)  # whoever asked first may be cancelled, and others wait as well
        turn = self._turns[host] = self._turns.get(host, -1) + 1
        return interleaved(found, turn)

    def _found(self, host: Host, asked: asyncio.Future[list[str]]) -> None:
        """Keep what was found for some seconds; what was not, not at all. It may come when nobody waits for it any more."""
        if asked.cancelled() or asked.exception() is not None:
            del self._known[host]
        else:
            asyncio.get_running_loop().call_later(NAME_KEPT, self._known.pop, host, None)


async def opened(to: Target, names: Names, context: ssl.SSLContext | None, patience: float) -> Connection:
    """Connect. `context`: None without TLS.

    Units: `patience` seconds for each address. Raises: OSError, ValueError, Unreachable
    """
    loop = asyncio.get_running_loop()
    sock = (await reach(await names.addresses(to.first), to.first.port, timeout=patience)).sock
    try:
        # In clear text first, also where TLS follows at once: given up within its handshake, the loops would not close the socket.
        below, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
    connection, came = Connection(below), asyncio.StreamReader(_TUNNEL_MAX, loop)
    transport: asyncio.Transport = below
    try:
        if to.tunnelled:
            transport = await _handed(transport, asyncio.StreamReaderProtocol(came), to.first, context)
            await _tunnel(transport, came, to)
            await _handed(transport, connection, to.host, context)
        else:
            await _handed(transport, connection, to.first, context)
    except BaseException:
        below.abort()
        raise
    return connection


async def _handed(
    transport: asyncio.Transport, protocol: asyncio.Protocol, host: Host, context: ssl.SSLContext | None
) -> asyncio.Transport:
    """Hand a connection to `protocol`, under TLS where the host has it. Raises: OSError"""
    if transport.is_closing():
        raise ConnectionResetError("it closed the connection")
    if not host.tls:
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport
    assert context is not None
    secured = await asyncio.get_running_loop().start_tls(transport, protocol, context, server_hostname=host.name.removesuffix("."))
    # A connection that is lost in the handshake: asyncio returns None, uvloop a transport that never spoke TLS.
    if secured is None or secured.get_extra_info("ssl_object") is None:
        raise ConnectionResetError("it closed the connection in the TLS handshake")
    protocol.connection_made(secured)
    return secured


async def _tunnel(transport: asyncio.Transport, came: asyncio.StreamReader, to: Target) -> None:
    """Have the proxy lead to the host. Raises: OSError"""
    transport.write(f"CONNECT {to.host} HTTP/1.1\r\nHost: {to.host}\r\n{to.login}\r\n".encode())
    try:
        head = await came.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ConnectionError(f"the proxy {to.proxy} did not answer CONNECT") from error
    said = _TUNNEL.match(head)
    if said is None or not said[1].startswith(b"2"):
        first = head.partition(b"\r\n")[0][:80].decode("ascii", "backslashreplace")
        raise ConnectionError(f"the proxy {to.proxy} refused the tunnel: {first}")
