"""An SMTP host that answers as a test tells it to: any reply at any command, or a dropped connection.

`replies` maps a command, or a command with an address (`RCPT b@example.org`), to a reply; a list is used up from the
front, and its last reply repeats. The keys CONNECT and `.` stand for the greeting and the end of the content. DROP closes
the connection instead of answering, RESET does so with a TCP reset, STALL never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from dataclasses import dataclass, field

DROP, RESET, STALL = "(drop)", "(reset)", "(stall)"
USUAL = {
    "CONNECT": "220 host.test ESMTP",
    "HELO": "250 host.test",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 Go on",
    ".": "250 2.0.0 Ok: queued as 4XyZ123",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
    "STARTTLS": "220 2.0.0 Ready",
    "AUTH": "235 2.7.0 Welcome",
}


@dataclass
class Taken:
    """One message: the commands that led to it, and the content as it went over the wire, final dot cut off.

    `chunk`: it came by BDAT, where dots are as they are.
    """

    mail: str
    rcpt: list[str]
    raw: bytes
    chunk: bool = False

    @property
    def content(self) -> bytes:
        if self.chunk:
            return self.raw
        lines = self.raw.split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


@dataclass
class ScriptedHost:
    replies: dict[str, str | list[str]] = field(default_factory=dict)
    offers: tuple[str, ...] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    read_content: bool = True
    """False: answer the key CONTENT in the middle of the content."""
    chunks: bool = True
    """False: what follows BDAT is read as commands."""
    address: str = "127.0.0.1"
    port: int = 0
    commands: list[list[str]] = field(default_factory=list)
    messages: list[Taken] = field(default_factory=list)
    tls_names: list[str | None] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    async def __aenter__(self) -> ScriptedHost:
        if self.tls is not None:
            self.tls.sni_callback = lambda _socket, name, _context: self.tls_names.append(name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(
            self._serve, self.address, self.port, limit=1 << 20, ssl=self.tls if self.implicit else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self.commands)

    def drop_all(self) -> None:
        """Close every connection that is open, as a host does that has waited long enough."""
        for task in list(self._tasks):
            task.cancel()

    def said(self, verb: str) -> list[str]:
        """Return every command of that verb, over all connections."""
        return [line for session in self.commands for line in session if line.upper().startswith(verb)]

    def _reply(self, verb: str, line: str) -> str:
        found = re.search(r"<([^>]*)>", line)
        for key in (f"{verb} {found[1]}" if found else verb, verb):
            reply = self.replies.get(key)
            if isinstance(reply, list):
                return reply.pop(0) if len(reply) > 1 else reply[0]
            if reply is not None:
                return reply
        return USUAL.get(verb, "500 5.5.1 What?")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, _Closed):
                await self._talk(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> None:
        if reply == STALL:
            await asyncio.sleep(3600)
        if reply == RESET:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if reply in (DROP, RESET):
            raise _Closed
        writer.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")
        await writer.drain()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log: list[str] = []
        self.commands.append(log)
        self.peers.append(writer.get_extra_info("peername")[0])
        await self._say(writer, self._reply("CONNECT", ""))
        secured, mail, rcpt = self.implicit, "", list[str]()
        while raw := await reader.readline():
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            log.append(line)
            verb = line.split(" ")[0].upper()
            if verb == "EHLO" and "EHLO" not in self.replies:
                offers = [offer for offer in self.offers if not (offer == "STARTTLS" and secured)]
                reply = "\r\n".join([*(f"250-{word}" for word in ("host.test", *offers)), "250 HELP"])
            elif verb == "BDAT" and self.chunks:
                reply = await self._chunk(reader, writer, line, mail, rcpt)
            else:
                reply = self._reply(verb, line)
            await self._say(writer, reply)
            if verb == "QUIT" or reply.startswith("421"):
                return
            if verb == "STARTTLS" and reply.startswith("220") and self.tls is not None:
                await writer.start_tls(self.tls)
                secured = True
            elif verb == "AUTH" and reply.startswith("334"):
                log.append((await reader.readline()).decode().rstrip("\r\n"))
                await self._say(writer, self._reply("PASSWORD", ""))
            elif verb == "MAIL" and reply.startswith("2"):
                mail, rcpt = line, []
            elif verb == "RCPT" and reply.startswith("2"):
                rcpt.append(line)
            elif verb == "DATA" and reply.startswith("354"):
                await self._content(reader, writer, mail, rcpt)

    async def _chunk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, mail: str, rcpt: list[str]
    ) -> str:
        """Read the one chunk of a message and return the reply to it."""
        size = int(line.split()[1])
        if not self.read_content:
            await reader.readexactly(10)
            await self._say(writer, self._reply("CONTENT", ""))
            raise _Closed
        raw = await reader.readexactly(size)
        reply = self._reply(".", "") if rcpt else "503 5.5.1 No recipients"
        if reply.startswith("2") or reply in (DROP, RESET, STALL):
            self.messages.append(Taken(mail, list(rcpt), raw, chunk=True))
        return reply

    async def _content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mail: str, rcpt: list[str]) -> None:
        if not self.read_content:
            await reader.readexactly(10)
            await self._say(writer, self._reply("CONTENT", ""))
            if self._reply("CONTENT", "").startswith(("4", "5")):
                while await reader.read(65536):
                    pass
            raise _Closed
        raw = bytearray(b"\r\n")
        while not raw.endswith(b"\r\n.\r\n"):
            raw += await reader.readuntil(b"\r\n")
        reply = self._reply(".", "")
        if reply.startswith("2") or reply in (DROP, RESET, STALL):
            self.messages.append(Taken(mail, list(rcpt), bytes(raw[2:-3])))
        await self._say(writer, reply)
        if reply.startswith("421"):
            raise _Closed


class _Closed(Exception):
    pass
