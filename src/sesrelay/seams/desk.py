"""What the ways in for operators ask of their desk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from sesrelay.mail.records import Filter
from sesrelay.seams.spool import Told, Verb

Document = dict[str, Any]
"""A JSON object of the public contract; keys are never absent, unknown is None."""


class Desk(Protocol):
    """What operators see and do, as documents of the public contract: the same with the daemon and without it."""

    @property
    def missing(self) -> str | None:
        """Return why there is no queue to look at yet; None where there is one."""

    async def summary(self) -> Document: ...
    def listing(self, filter: Filter) -> AsyncIterator[Document]: ...
    async def show(self, queue_id: str) -> Document | None: ...
    async def trace(self, any_id: str) -> list[Document]: ...
    async def change(self, verb: Verb, filter: Filter, via: str | None = None, told: Told | None = None) -> int: ...
    async def park(self, filter: Filter, told: Told | None = None) -> int:
        """Hold what is here and what comes; return how many are held now."""

    async def unpark(self, filter: Filter, told: Told | None = None) -> int | None:
        """Release what is held, and hold no longer what comes; None, and nothing is done, where that was not parked."""

    async def recent(self, limit: int) -> list[Document]:
        """Return the messages accepted last, newest first, as `show` has them, with their `subject` added."""

    async def export(self, queue_id: str) -> tuple[Document, bytes | None] | None:
        """Return all that another queue needs of a message, and its content; no content where all has ended."""

    async def take(self, document: Document, content: bytes) -> bool:
        """Store an exported message under its queue id; False: it is here already. Raises: Unfit"""
