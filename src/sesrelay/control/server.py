"""The daemon's end of the control socket.

Invariant: the socket's mode (`MODE`) is what decides who may speak here; nothing else is asked.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from sesrelay.control import wire
from sesrelay.seams import Desk, Document, Observer, SpoolError, Told, Unfit, Verb

CHANGES = frozenset({"hold", "release", "retry", "delete"})
MODE = 0o660
STANDING = frozenset({"park", "unpark"})


class _OtherQueue(Exception):
    """A verb means another relay than the one that it has found."""


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

    async def serve(self, sock: socket.socket) -> None:
        """Answer on a listening socket, from now on on no other; who is connected stays."""
        self.stop()
        # Not start_unix_server: from Python 3.13 on it takes the file away at its end, and its owner does that.
        self._server = await asyncio.start_server(self._answer_all, sock=sock, limit=wire.LINE_MAX)
        self._sock = sock

    def stop(self) -> None:
        if self._server is not None and self._sock is not None:
            self._server.close()
            self._sock.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for request in reader:
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.observer.notice("control connection dropped", error=str(error))
        finally:
            writer.close()

    async def _answer(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(request)
            verb, args = asked["verb"], asked.get("args", {})
            if asked.get("queue", self.queue) != self.queue:
                raise _OtherQueue
            content = await _content(asked, reader)
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


async def _content(asked: dict[str, Any], reader: asyncio.StreamReader) -> bytes:
    """Return the octets that follow a request. Raises: ConnectionError for more than a message may have: what comes is unknown"""
    octets = int(asked.get("octets", 0))
    if not 0 <= octets <= wire.CONTENT_MAX:
        raise ConnectionError(f"{octets} octets are no message")
    return await reader.readexactly(octets)
