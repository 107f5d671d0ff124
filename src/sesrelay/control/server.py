"""The daemon's end of the control socket.

Invariant: the socket's mode (`MODE`) is what decides who may speak here; nothing else is asked.
Invariant: for a new connection beyond `MOST` the one that has been quiet for longest goes, so a verb is always answered; one that
waits for its answer goes only where all do.
Invariant: one request that is long or has content is held at a time, and its other end has `PATIENCE` to bring it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from sesrelay.control import wire
from sesrelay.seams import Desk, Document, Observer, SpoolError, Told, Unfit, Verb

CHANGES = frozenset({"hold", "release", "retry", "delete"})
MODE = 0o660
MOST = 64  # connections: each holds a descriptor, which mail needs
SHORT = 64 * 1024  # octets of a request that anybody may have here: all but those that name thousands of messages
PATIENCE = 60.0  # seconds; a verb has it all at hand, and sends it at once
STANDING = frozenset({"park", "unpark"})


class _OtherQueue(Exception):
    """A verb means another relay than the one that it has found."""


class _Turn:
    """A connection's turn to have a large request here: taken once it turns out to be one."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._mine = False

    async def take(self) -> None:
        if not self._mine:
            await self._lock.acquire()
            self._mine = True

    def give_back(self) -> None:
        if self._mine:
            self._mine = False
            self._lock.release()


@dataclass(slots=True)
class ControlServer:
    """`queue` is whose this is: the real path of its state_dir; `status` tells of the daemon; `reload` reads the
    configuration anew and returns what happened.
    """

    queue: str
    desk: Desk
    observer: Observer
    status: Callable[[], Document]
    reload: Callable[[], Awaitable[Document]]
    _server: asyncio.AbstractServer | None = field(default=None, init=False)
    _sock: socket.socket | None = field(default=None, init=False)
    _here: dict[asyncio.StreamWriter, bool] = field(default_factory=dict, init=False)  # the quietest first; True: waits
    _large: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def serve(self, sock: socket.socket) -> None:
        """Answer on a listening socket, from now on on no other; who is connected stays."""
        self.stop()
        # Not start_unix_server: from Python 3.13 on it takes the file away at its end, and its owner does that.
        self._server = await asyncio.start_server(self._connected, sock=sock, limit=SHORT)
        self._sock = sock

    def stop(self) -> None:
        if self._server is not None and self._sock is not None:
            self._server.close()
            self._sock.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        while len(self._here) >= MOST:
            idle = (each for each, answering in self._here.items() if not answering)
            quietest = next(idle, next(iter(self._here)))
            del self._here[quietest]
            quietest.transport.abort()  # closing would wait for what it does not read
        self._here[writer] = False
        return self._answer_all(reader, writer)

    def _heard(self, writer: asyncio.StreamWriter, *, answering: bool) -> None:
        if writer in self._here:
            del self._here[writer]
            self._here[writer] = answering

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = _Turn(self._large)
        try:
            while request := await _line(reader, turn):
                self._heard(writer, answering=True)
                await self._answer(request, reader, writer, turn)
                turn.give_back()
                self._heard(writer, answering=False)
                await asyncio.sleep(0)  # whoever sends thousands of requests at once does not keep the loop
        except (ConnectionError, asyncio.IncompleteReadError, ValueError) as error:
            self.observer.notice("control connection dropped", error=str(error))
        finally:
            turn.give_back()
            self._here.pop(writer, None)
            writer.close()

    async def _answer(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: _Turn) -> None:
        try:
            asked = json.loads(request)
            verb, args = asked["verb"], asked.get("args", {})
            if asked.get("queue", self.queue) != self.queue:
                raise _OtherQueue
            content = await _content(asked, reader, turn)
            if verb != "import":
                turn.give_back()  # what is asked for may take as long as somebody reads the answer
            if verb == "export":
                await self._export(str(args["id"]), writer)
                return
            if verb == "import":
                end: Any = await self._import(args["document"], content)
            elif verb == "list":
                async for item in self.desk.listing(wire.filter_from_json(args)):
                    writer.write(wire.line({"item": item}))
                    await writer.drain()
                end = None
            else:
                end = await self._do(verb, args, lambda *far: writer.write(wire.line({"progress": far})))
        except _OtherQueue:
            writer.write(wire.line({"error": f"this is the relay whose queue is in {self.queue}", "queue": self.queue}))
        except (KeyError, TypeError, ValueError) as error:
            writer.write(wire.line({"error": f"the request is not understood: {error}"}))
        except SpoolError as error:
            writer.write(wire.line({"error": f"the queue cannot be reached: {error}"}))
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception as error:  # a fault of ours: who asked is told, and the log has the rest
            self.observer.trouble("a request at the control socket failed", error)
            writer.write(wire.line({"error": f"the daemon failed: {type(error).__name__}; its log says more"}))
        else:
            writer.write(wire.line({"end": end}))
        await writer.drain()

    async def _export(self, queue_id: str, writer: asyncio.StreamWriter) -> None:
        found = await self.desk.export(queue_id)
        document, content = found or (None, None)
        writer.write(wire.line({"end": document} if content is None else {"end": document, "octets": len(content)}))
        if content:
            writer.write(content)
        await writer.drain()

    async def _import(self, document: Document, content: bytes) -> Document:
        try:
            return {"imported": await self.desk.take(document, content), "refused": None}
        except Unfit as error:
            return {"imported": False, "refused": str(error)}

    async def _do(self, verb: str, args: dict[str, Any], told: Told) -> Any:
        if verb in CHANGES:
            return await self.desk.change(cast(Verb, verb), wire.filter_from_json(args), args.get("via"), told)
        if verb in STANDING:
            filter = wire.filter_from_json(args)
            return await (self.desk.park(filter, told) if verb == "park" else self.desk.unpark(filter, told))
        if verb == "summary":
            return await self.desk.summary()
        if verb == "show":
            return await self.desk.show(str(args["id"]))
        if verb == "trace":
            return await self.desk.trace(str(args["id"]))
        if verb == "recent":
            return await self.desk.recent(int(args["limit"]))
        if verb == "here":
            return None
        if verb == "status":
            return self.status()
        if verb == "reload":
            return await self.reload()
        raise ValueError(f"there is no verb {verb!r}")


async def _line(reader: asyncio.StreamReader, turn: _Turn) -> bytes:
    """Return the line of the next request, or what came of it; empty at the end. Raises: ConnectionError"""
    try:
        return await reader.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        await turn.take()
        return await _in_time(_long_line(reader))


async def _long_line(reader: asyncio.StreamReader) -> bytes:
    line = bytearray()
    while len(line) <= wire.LINE_MAX:
        try:
            return bytes(line + await reader.readuntil())
        except asyncio.IncompleteReadError as error:
            return bytes(line + error.partial)
        except asyncio.LimitOverrunError as error:
            line += await reader.readexactly(error.consumed)
    line.clear()  # the error's traceback has it
    raise ConnectionError("a request that does not end")


async def _content(asked: dict[str, Any], reader: asyncio.StreamReader, turn: _Turn) -> bytes:
    """Return the octets that follow a request. Raises: ConnectionError for more than a message may have: what comes is unknown"""
    octets = int(asked.get("octets", 0))
    if not 0 <= octets <= wire.CONTENT_MAX:
        raise ConnectionError(f"{octets} octets are not a valid message size")
    if octets > SHORT:
        await turn.take()
    return await _in_time(reader.readexactly(octets)) if octets else b""


async def _in_time(coming: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):  # no wait_for: its frame and an error would keep each other, and what has come
            return await coming
    except TimeoutError:
        raise ConnectionError("a request was not sent completely in time") from None
