"""The daemon's end of the control socket.

Invariant: the socket's mode (0660) is what decides who may speak here; nothing else is asked.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sesrelay.control import wire
from sesrelay.seams import Desk, Document, Observer, SpoolError, Told, Unfit, Verb

CHANGES = frozenset({"hold", "release", "retry", "delete"})
STANDING = frozenset({"park", "unpark"})


@dataclass(slots=True)
class ControlServer:
    """`status` tells of the daemon; `reload` reads the configuration anew and returns what happened."""

    path: Path
    desk: Desk
    observer: Observer
    status: Callable[[], Document]
    reload: Callable[[], Awaitable[Document]]
    _server: asyncio.AbstractServer | None = field(default=None, init=False)

    async def start(self) -> None:
        """Listen. A socket file that a dead daemon left is replaced: the lock on `state_dir` says that it is dead.

        Raises: ValueError naming the key and the remedy
        """
        before = os.umask(0o117)
        try:
            self.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self.path, limit=wire.LINE_MAX)
        except OSError as error:
            raise ValueError(f"control: {self.path}: {_explained(self.path, error)}") from error
        finally:
            os.umask(before)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        except (KeyError, TypeError, ValueError) as error:
            writer.write(wire.line({"error": f"the request is not understood: {error}"}))
        except SpoolError as error:
            writer.write(wire.line({"error": f"the queue cannot be reached: {error}"}))
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
        if verb == "status":
            return self.status()
        if verb == "reload":
            return await self.reload()
        raise ValueError(f"there is no verb {verb!r}")


def _explained(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no folder {path.parent}: create it, owned by the relay's user, or set control"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to make a socket in {path.parent}: give the folder to the relay's user, or set control"
    if error.errno is None:  # Python's own: AF_UNIX path too long
        return "the path is too long for a socket (107 octets): set control"
    return f"{error.strerror}; set control"


async def _content(asked: dict[str, Any], reader: asyncio.StreamReader) -> bytes:
    """Return the octets that follow a request. Raises: ConnectionError for more than a message may have: what comes is unknown"""
    octets = int(asked.get("octets", 0))
    if not 0 <= octets <= wire.CONTENT_MAX:
        raise ConnectionError(f"{octets} octets are no message")
    return await reader.readexactly(octets)
