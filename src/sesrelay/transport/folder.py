"""Folders on this machine for the operator: the last way of a report that could not be sent, and what SES rejected.

A folder is a Maildir, made when the first report comes: what is in `new` and `cur` is complete, and any mail program
reads it. A file is named by the message's queue id, so that an attempt which is repeated after a crash leaves one file.

Invariant: Delivered means that the file and its name are on stable storage.

Source: Maildir as Courier's maildir(5) has it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.envelope import Message
from sesrelay.mail.filed import Filed, Large
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.mail.priority import Priority
from sesrelay.mail.reply import Reply
from sesrelay.seams import Content, Observer

LIMIT = 1_000  # copies of rejected messages: an application that is rejected a million times fills no disk


class FolderTransport:
    """Implements `sesrelay.seams.Transport`."""

    batch_limit = 1
    concurrency = 1
    failover_after = float("inf")

    def __init__(self, name: str, folder: Path, hostname: str, observer: Observer) -> None:
        self.name = name
        self._folder = folder
        self._hostname = hostname
        self._observer = observer

    def start(self) -> None:
        """Do nothing: the folder is made when it is wanted."""

    def nexthop(self, recipient: str) -> str:
        return str(self._folder)

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: nothing was taken."""

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        outcome: Outcome
        try:
            name = f"{batch.message.id}.{self._hostname}"
            await asyncio.to_thread(put, self._folder, name, await content.read())
        except Exception as error:
            reply = Reply(451, "4.3.0", f"The report cannot be written to {self._folder}: {error}")
            remedy = f"Allow the daemon's user to write to {self._folder}, and check that its disk has free space."
            outcome = Deferred(reply, Scope.TRANSPORT, PauseReason.CONFIGURATION, remedy)
        else:
            self._observer.trouble(
                "a bounce could not be sent; it is kept in the folder for undeliverable reports",
                queue_id=batch.message.id,
                recipient=batch.deliveries[0].recipient.address,
                folder=str(self._folder),
            )
            outcome = Delivered(Reply(250, "2.0.0", f"kept in {self._folder}/new/{name}"), name)
        return batch.for_all(outcome)

    async def close(self) -> None:
        """Do nothing: nothing is open."""


class RejectedFolder:
    """Copies of messages that SES rejected for what they are: their content goes when they bounce, and somebody will ask."""

    def __init__(self, folder: Path, hostname: str, observer: Observer) -> None:
        self._folder = folder
        self._hostname = hostname
        self._observer = observer

    async def keep(self, message: Message, content: Content) -> None:
        """Write a copy, unless there are LIMIT. Raises nothing but CancelledError: a copy holds up no bounce."""
        name = f"{message.id}.{self._hostname}"
        try:
            if await asyncio.to_thread(count, self._folder) >= LIMIT:
                self._observer.notice(
                    "SES rejected a message, and the folder for copies is full", queue_id=message.id, folder=str(self._folder)
                )
                return
            await asyncio.to_thread(put, self._folder, name, await content.read(), message.sender)
        except Exception as error:
            self._observer.trouble("a copy of a message that SES rejected cannot be kept", error, queue_id=message.id)
        else:
            self._observer.notice(
                "SES rejected a message; a copy is kept", queue_id=message.id, file=str(self._folder / "new" / name)
            )


def put(folder: Path, name: str, content: Large, sender: str = "") -> None:
    """Write one message into the Maildir, once: a repetition finds it in `new` or, read meanwhile, in `cur`. Raises: OSError"""
    new, cur, tmp = (folder / part for part in ("new", "cur", "tmp"))
    if not tmp.is_dir():
        for each in (folder, new, cur, tmp):
            each.mkdir(mode=0o750, exist_ok=True)
        _sync(folder)
        _sync(folder.parent)
    if (new / name).exists() or any(found.name.startswith((f"{name}:", f"{name},")) for found in cur.iterdir()):
        return
    written = tmp / name
    with written.open("wb") as file:
        file.write(f"Return-Path: <{sender}>\n".encode("utf-8", "surrogateescape"))
        for piece in content.pieces() if isinstance(content, Filed) else (content,):
            file.write(piece.replace(b"\r", b""))  # no CR stands without its LF
        file.flush()
        os.fsync(file.fileno())
    written.rename(new / name)
    _sync(new)


def count(folder: Path) -> int:
    """Return how many messages are in the Maildir."""
    found = 0
    for part in ("new", "cur"):
        try:
            found += sum(1 for entry in os.scandir(folder / part) if not entry.name.startswith("."))
        except FileNotFoundError:
            continue
    return found


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
