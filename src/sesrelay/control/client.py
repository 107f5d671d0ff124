"""A verb's end of the control socket: the desk of a running daemon.

Implements `seams.Desk`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sesrelay.control import question, wire
from sesrelay.control.question import ControlError as ControlError  # noqa: PLC0414 - handed on
from sesrelay.control.question import ControlRefusal, NoAnswer, OtherQueue, connected, pid_of, read, silent
from sesrelay.seams import Document, Filter, Told, Unfit, Verb


@dataclass(slots=True)
class RemoteDesk:
    """One connection; requests one after the other. Raises: ControlError from every method.

    Invariant: what is left of a listing that was not read to its end is never taken for the answer to the next question.
    """

    path: Path
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    queue: str | None = None
    _owed: int = field(default=0, init=False)  # answers whose end has not come

    @classmethod
    async def connect(cls, path: Path, queue: str | None = None) -> RemoteDesk:
        """Speak to the daemon that listens at `path`, or only to the one of `queue`, the real path of a state_dir.

        Raises: FileNotFoundError, ConnectionRefusedError where no daemon listens; PermissionError; OtherQueue, NoAnswer,
        ControlError
        """
        connection = await asyncio.to_thread(connected, path)
        desk = cls(path, *await asyncio.open_unix_connection(sock=connection, limit=wire.LINE_MAX), queue)
        if queue is not None:
            try:
                await desk.call("here")
            except ControlRefusal as refused:
                # One that does not know the question is an older version's, until it is restarted.
                if isinstance(refused, OtherQueue):
                    desk.writer.close()
                    raise
            except ControlError:
                desk.writer.close()  # its answer may come yet, and would be taken for that to the next question
                raise
        return desk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.close()

    @property
    def missing(self) -> str | None:
        return None  # a daemon has a queue

    async def summary(self) -> Document:
        return dict(await self.call("summary"))

    async def listing(self, filter: Filter) -> AsyncIterator[Document]:
        async for kind, value in self._ask("list", wire.filter_to_json(filter)):
            if kind == "item":
                yield value

    async def show(self, queue_id: str) -> Document | None:
        found: Document | None = await self.call("show", {"id": queue_id})
        return found

    async def trace(self, any_id: str) -> list[Document]:
        return list(await self.call("trace", {"id": any_id}))

    async def change(self, verb: Verb, filter: Filter, via: str | None = None, told: Told | None = None) -> int:
        return int(await self.call(verb, {**wire.filter_to_json(filter), "via": via}, told=told))

    async def park(self, filter: Filter, told: Told | None = None) -> int:
        return int(await self.call("park", wire.filter_to_json(filter), told=told))

    async def unpark(self, filter: Filter, told: Told | None = None) -> int | None:
        changed: int | None = await self.call("unpark", wire.filter_to_json(filter), told=told)
        return changed

    async def recent(self, limit: int) -> list[Document]:
        return list(await self.call("recent", {"limit": limit}))

    async def export(self, queue_id: str) -> tuple[Document, bytes | None] | None:
        content: bytes | None = None
        document: Document | None = None
        async for kind, value in self._ask("export", {"id": queue_id}):
            if kind == "octets":
                content = value
            else:
                document = value
        return None if document is None else (document, content)

    async def take(self, document: Document, content: bytes) -> bool:
        answer: Document = await self.call("import", {"document": document}, content)
        if answer["refused"] is not None:
            raise Unfit(str(answer["refused"]))
        return bool(answer["imported"])

    async def call(
        self, verb: str, args: dict[str, Any] | None = None, content: bytes | None = None, *, told: Told | None = None
    ) -> Any:
        """Ask one thing and return its answer."""
        async for kind, value in self._ask(verb, args or {}, content):
            if kind == "end":
                return value
            if kind == "progress" and told is not None:
                told(*value)
        raise ControlError("the daemon did not answer")

    async def _ask(self, verb: str, args: dict[str, Any], content: bytes | None = None) -> AsyncIterator[tuple[str, Any]]:
        """Yield `item`s, the `octets` of a content, and last the `end`."""
        request: dict[str, Any] = {"verb": verb, "args": args}
        if self.queue is not None:
            request["queue"] = self.queue
        if content is not None:
            request["octets"] = len(content)
        try:
            self.writer.write(wire.line(request))
            self.writer.write(content or b"")
            await self.writer.drain()
        except ConnectionError:
            raise ControlError("the connection to the daemon was lost before it answered") from None
        self._owed += 1
        while self._owed > 1:
            with contextlib.suppress(ControlRefusal):
                await self._next()
        while self._owed:
            kind, answer = await self._next(at_once=verb == "here")
            if "octets" in answer:
                yield "octets", await self._octets(answer["octets"])
            yield kind, answer[kind]

    async def _next(self, *, at_once: bool = False) -> tuple[str, Document]:
        """Return the next line of an answer, and what it is."""
        try:
            line = await self._coming(self.reader.readline, at_once=at_once)
        except ConnectionError:
            line = b""
        try:
            answer = read(line)
        except ControlRefusal:
            self._owed -= 1
            raise
        kind = next((one for one in ("item", "progress") if one in answer), "end")
        self._owed -= kind == "end"
        return kind, answer

    async def _coming(self, reading: Callable[[], Awaitable[bytes]], *, at_once: bool = False) -> bytes:
        """Return what `reading` waits for; given up and begun anew, that loses nothing. Raises: NoAnswer, ControlError"""
        looks = 0
        while True:
            try:
                return await asyncio.wait_for(reading(), question.QUIET)
            except TimeoutError:
                if at_once:
                    raise NoAnswer(pid_of(self.writer.get_extra_info("socket"))) from None
                looks += 1
                await asyncio.to_thread(silent, self.path, looks)

    async def _octets(self, octets: int) -> bytes:
        try:
            return await self._coming(lambda: self.reader.readexactly(octets))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ControlError("the connection to the daemon was lost in the middle of a message") from None
