"""What tests of HTTP to SES share: hosts and proxies, and what those do to a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sesrelay.transport.net.reach import Reached, reach

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD_END = b"\r\n\r\n"


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Yield the port of a server that treats each connection so."""
    async with await asyncio.start_server(handler, host, port, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


def length(head: bytes) -> int:
    """Return how many octets follow the head of a request."""
    (found,) = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return found


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, at once."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def narrow(*where: Any, **options: Any) -> Reached:
    """Reach a host by a socket that keeps little of what is written."""
    reached = await reach(*where, **options)
    reached.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    return reached


def narrow_host() -> socket.socket:
    """Return a listening socket whose connections keep little of what comes."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    return listening


# --- proxies ---


async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0" + HEAD_END)
    await writer.drain()
    writer.close()


async def closes_under_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    writer.write(b"HTTP/1.1 200 Connected" + HEAD_END)
    await writer.drain()
    await reader.read(1)
    writer.close()


def tunnel_to(port: int, connects: list[bytes]) -> Handler:
    """Return a proxy that does CONNECT, and ends at `port` whatever it is asked for. `connects`: gets the heads of the requests."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connects.append(await reader.readuntil(HEAD_END))
        there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected" + HEAD_END)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    return handle
