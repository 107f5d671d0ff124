"""The contents of messages, wherever they are: small ones in a table, large ones in files written before their rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import apsw

from sesrelay.mail import queue_id
from sesrelay.mail.filed import Filed
from sesrelay.mail.lineends import Canonical
from sesrelay.seams import ContentGone, SpoolError, Submission
from sesrelay.spool import query
from sesrelay.spool.errors import as_spool_error
from sesrelay.spool.files import THRESHOLD, Bodies
from sesrelay.spool.reader import Reader
from sesrelay.spool.records import STORED, Packed, number_of, pack
from sesrelay.spool.transaction import Transaction
from sesrelay.spool.writer.promise import Writer

T = TypeVar("T")

BODY = "SELECT body FROM content WHERE message = ?"
WHERE_BODY = "SELECT EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND state < 3) FROM message WHERE id = ?1 AND stored = 1"


class Contents:
    """Reads and files what messages say; on threads of the pool, and the reader's."""

    def __init__(self, bodies: Bodies, reader: Reader, writer: Writer, pool: ThreadPoolExecutor) -> None:
        self._bodies = bodies
        self._reader = reader
        self._writer = writer
        self._pool = pool

    async def read(self, message: str) -> Canonical:
        """Return a content whole. Raises: ContentGone, SpoolError"""
        number = number_of(message)

        def read(cursor: apsw.Cursor) -> bytes | None:
            row = cursor.execute(BODY, (number,)).fetchone()
            if row is not None:
                return bytes(row[0])
            row = cursor.execute(WHERE_BODY, (number,)).fetchone()
            return self._bodies.read(message) if row is not None and row[0] else None

        try:
            content = await self._reader.run(read)
        except SpoolError as error:
            if isinstance(error.__cause__, FileNotFoundError | apsw.CorruptError):
                raise ContentGone(f"{message}: the content is lost: {error.__cause__}") from error
            raise
        if content is None:
            raise ContentGone(f"{message}: the content no longer exists")
        return Canonical(content)  # it was when it came

    async def filed(self, message: str) -> Filed | None:
        """See `Bodies.filed`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._bodies.filed, message)

    async def store(self, submissions: Sequence[Submission], do: Callable[[list[Packed]], Callable[[Transaction], T]]) -> T:
        """Write large contents to files, then have the writer run what `do` returns.

        A caller that goes away does not stop it half-way. Raises: SpoolError
        """
        return await asyncio.shield(asyncio.ensure_future(self._store(submissions, do)))

    async def _store(self, submissions: Sequence[Submission], do: Callable[[list[Packed]], Callable[[Transaction], T]]) -> T:
        loop = asyncio.get_running_loop()
        packed = [pack(each, in_file=len(each.content) > THRESHOLD) for each in submissions]
        written: list[Packed] = []
        try:
            for each, rows in zip(submissions, packed, strict=True):
                if rows.message[STORED]:
                    await loop.run_in_executor(self._pool, self._bodies.write, each.message.id, each.content)
                    written.append(rows)
            return await self._writer.submit(do(packed))
        except FileExistsError as error:
            await self._drop(written)
            raise SpoolError("the queue id is taken") from error
        except (OSError, RuntimeError, SpoolError) as error:
            await self._drop(written)
            raise as_spool_error(error) from error

    async def _drop(self, written: Sequence[Packed]) -> None:
        """Remove files whose messages were not stored; what cannot be removed now is swept at the next start."""
        loop = asyncio.get_running_loop()
        for rows in written:
            try:
                known = await self._reader.run(partial(query.row, statement=WHERE_BODY, bindings=(rows.number,)))
                if known is None:
                    await loop.run_in_executor(self._pool, self._bodies.remove, queue_id.encode(rows.number))
            except (OSError, RuntimeError, SpoolError):
                continue
