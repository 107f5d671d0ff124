"""A thread that reads: its own connection, which cannot write, and one short read transaction a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import apsw

from sesrelay.seams import SpoolError
from sesrelay.spool.errors import as_spool_error

T = TypeVar("T")


class Reader:
    """Runs on: a thread of its own, one call after the other."""

    def __init__(self, name: str, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._db: apsw.Connection | None = connect()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closed = False

    async def run(self, read: Callable[[apsw.Cursor], T]) -> T:
        """Return what `read` returns. Raises: SpoolError"""
        if self._closed:
            raise SpoolError("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, read)
        except (apsw.Error, OSError, RuntimeError) as error:
            raise as_spool_error(error) from error

    def _run(self, read: Callable[[apsw.Cursor], T]) -> T:
        if self._db is None:
            self._db = self._connect()
        try:
            cursor = self._db.cursor()
            cursor.execute("BEGIN")
            try:
                return read(cursor)
            finally:
                cursor.execute("COMMIT")
        except apsw.Error:
            # What failed once may have left the connection behind; the next call gets a fresh one.
            db, self._db = self._db, None
            db.close(True)
            raise

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._pool.shutdown(wait=True)
        if self._db is not None:
            self._db.close(True)
            self._db = None
