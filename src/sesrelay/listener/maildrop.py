"""The maildrop: takes in what sesrelay-sendmail left in a folder while the relay could not be reached.

Each file is said to a session of its own, as its client would have, so that no rule of the listener is passed by; the file's
owner is whom the session belongs to.

Invariant: a file goes only once the intake has said 250 for every recipient, or once what was refused for good is set aside.
Invariant: no recipient of a message that has a Message-ID gets it twice, neither after a crash in between nor where a file that
was refused in part is moved back: the session's name says which recipients of which file its message is for, and the queue is
asked for such names before.

Several files are on their way at once, in no order, as a folder has none; of those that are not small, one.

Runs on: the event loop; files are touched in a thread of its own: as each thread keeps what it had for a large one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import stat
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sesrelay.listener.dropped import Dropped, TooLarge, Unfit, read
from sesrelay.listener.listening import Door, ListenerServer
from sesrelay.listener.session import SmtpSession
from sesrelay.mail.envelope import Owner
from sesrelay.seams import Clock, SpoolError

LISTENER = "maildrop"
ASIDE = "bad"
EVERY = 2.0  # seconds between two looks at the folder
SETTLED = 1.0  # seconds since its last change after which the folder need not be read again
AT_ONCE = 500  # files of one look; the rest follows at once
ABREAST = 8  # files on their way at once, so that one commit serves them; with more, clients wait longer for their turn
SMALL = 256 * 1024  # octets of content; of what is larger one at a time is held in memory
AGAIN_FIRST, AGAIN_MOST = 30.0, 600.0  # seconds until a file that was put off is tried again
PATIENCE = 5 * 86400.0  # seconds of age after which it is not tried again
REPLY_TIME = 600.0
ABANDONED = 86400.0  # seconds after which a file that was begun and never finished goes

NAMED_MOST = 500  # recipients of one session: more would not fit into its name, of at most 255 octets

T = TypeVar("T")
Taken = Callable[[str, str, str], Awaitable[Collection[str]]]
"""Return the session names, of what the queue has of a Message-ID from a listener, that begin so."""


class Later(Exception):
    """The relay cannot take it now; the text says why."""


@dataclass(slots=True)
class Maildrop:
    """Runs beside the listener. `folder` is asked at each look; where there is none, nothing happens."""

    listener: ListenerServer
    folder: Callable[[], Path]
    taken: Taken
    clock: Clock
    every: float = EVERY
    _seen: tuple[str, float] | None = field(default=None, init=False)
    _waiting: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)  # name: when to try again, next wait
    _stuck: set[str] = field(default_factory=set, init=False)  # what is done with and cannot be removed
    _large: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "maildrop"), init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _over: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _in_trouble: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Look for messages until `stop`."""
        try:
            while not self._stopping.is_set():
                if not await self._looked():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), self.every)
        finally:
            self._thread.shutdown(wait=False)
            self._over.set()

    async def _looked(self) -> bool:
        try:
            more = await self.look()
        except OSError as error:
            if not self._in_trouble:
                self.listener.observer.trouble("the maildrop folder cannot be read", error, folder=str(self.folder()))
            self._in_trouble = True
            return False
        self._in_trouble = False
        return more

    def stop(self) -> None:
        """Let `run` end once the files at hand are done with."""
        self._stopping.set()

    async def ended(self, grace: float) -> None:
        """Wait for that end, at most `grace` seconds: what has a 250 and stays would come again at the next start."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), grace)

    async def look(self) -> bool:
        """Take in what is there, if anything has changed; tell whether there was more than is taken at once. Raises: OSError"""
        folder = str(self.folder())
        try:
            changed = os.stat(folder).st_mtime  # noqa: PTH116 - quick, and names here may be any octets
        except FileNotFoundError:
            return False
        state = (folder, changed)
        now = asyncio.get_running_loop().time()
        due = [name for name, (when, _) in self._waiting.items() if when <= now]
        if state == self._seen and not due:
            return False
        names, more = await self._apart(self._names, folder, now)
        options = self.listener.terms().options
        waiting = iter(names)
        async with asyncio.TaskGroup() as group:
            for _ in range(max(min(ABREAST, options.connections // 4, options.connections_per_client // 4), 1)):
                group.create_task(self._take_in_each(folder, waiting))
        if names:
            await self._apart(_sync, folder)
        if self._stopping.is_set():
            return False
        # A file that comes within the same tick of the kernel's clock changes nothing that could be seen.
        self._seen = state if not more and self.clock.wall() - changed > SETTLED else None
        return more

    async def _apart(self, work: Callable[..., T], *args: object) -> T:
        """Do what touches files in the thread for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _names(self, folder: str, now: float) -> tuple[list[str], bool]:
        names: list[str] = []
        there: set[str] = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    self._drop_abandoned(entry)
                    continue
                there.add(entry.name)
                if entry.name == ASIDE or entry.name in self._stuck or self._waiting.get(entry.name, (0.0,))[0] > now:
                    continue
                if len(names) == AT_ONCE:
                    return names, True
                names.append(entry.name)
        self._stuck &= there
        for name in self._waiting.keys() - there:
            del self._waiting[name]
        return names, False

    def _drop_abandoned(self, entry: os.DirEntry[str]) -> None:
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if self.clock.wall() - found.st_mtime > ABANDONED and not stat.S_ISDIR(found.st_mode):
                os.unlink(entry.path)  # noqa: PTH108

    async def _take_in_each(self, folder: str, waiting: Iterator[str]) -> None:
        for name in waiting:
            if self._stopping.is_set():
                return
            async with contextlib.AsyncExitStack() as held:
                await self._take_in(folder, name, held)

    async def _take_in(self, folder: str, name: str, held: contextlib.AsyncExitStack) -> None:
        options = self.listener.terms().options
        try:
            try:
                dropped = await self._apart(read, folder, name, min(options.message_size, SMALL))
            except TooLarge:
                await held.enter_async_context(self._large)
                dropped = await self._apart(read, folder, name, options.message_size)
            owner = await self._apart(_owner, dropped.uid)
            beginning = _beginning(dropped)
            have = _have(beginning, await self.taken(dropped.message_id, LISTENER, beginning))
            refused = [
                refusal
                for first, part in _parts(len(dropped.recipients), have, min(options.recipients, NAMED_MOST))
                for refusal in await self._hand_in(dropped, owner, first, part)
            ]
        except FileNotFoundError:
            return
        except Unfit as unfit:
            await self._set_aside(folder, name, str(unfit), worthless=unfit.worthless)
        except (Later, SpoolError, OSError) as error:
            await self._put_off(folder, name, str(error))
        except Exception as error:  # a bug: this file waits, the others are taken in
            self.listener.observer.trouble("a file in the maildrop could not be queued", error, file=name)
            await self._put_off(folder, name, "an internal error")
        else:
            self._waiting.pop(name, None)
            if refused:
                await self._set_aside(folder, name, "; ".join(refused), owner=str(owner))
            else:
                await self._remove(folder, name)

    async def _put_off(self, folder: str, name: str, why: str) -> None:
        try:
            age = self.clock.wall() - os.lstat(f"{folder}/{name}").st_mtime
        except OSError:
            age = 0.0
        if age > PATIENCE:
            await self._set_aside(folder, name, f"it was deferred for days, most recently because: {why}")
            return
        _, wait = self._waiting.get(name, (0.0, AGAIN_FIRST))
        self._waiting[name] = (asyncio.get_running_loop().time() + wait, min(2 * wait, AGAIN_MOST))
        self.listener.observer.notice("a message stays in the maildrop for now", file=name, why=why, again_in=wait)

    async def _hand_in(self, dropped: Dropped, owner: Owner, first: int, part: list[int]) -> list[str]:
        """Hand in the message for the recipients of those numbers; return the refusals for good. Raises: Later, OSError

        A session in which somebody is refused ends before the content: the next one is named after those who are left.
        """
        refusals: dict[int, str] = {}
        while left := [n for n in part if n not in refusals]:
            new = await self._say(dropped, owner, _session_name(dropped, first, left), left)
            if not new:
                break
            refusals |= new
        if len(refusals) == len(part) > 1 and len(set(refusals.values())) == 1:
            return [f"all recipients: {refusals[part[0]]}"]
        return [f"{dropped.recipients[n][8:].decode(errors='backslashreplace')}: {text}" for n, text in refusals.items()]

    async def _say(self, dropped: Dropped, owner: Owner, name: str, chosen: list[int]) -> dict[int, str]:
        """Hand in the message in one session, for all of `chosen` or for nobody; return who was refused for good, and why."""
        talk = await Talk.begin(self.listener, owner)
        try:
            await talk.say(b"", "2")
            refusal = await talk.say(b"EHLO " + name.encode() + b"\r\n", "2") or await talk.say(dropped.mail + b"\r\n", "2")
            if refusal:
                return dict.fromkeys(chosen, refusal)
            refusals: dict[int, str] = {}
            for n in chosen:
                try:
                    refusal = await talk.say(dropped.recipients[n] + b"\r\n", "2")
                except Later:
                    if not refusals:
                        raise
                    break  # a session bears so many refusals and no more; the next one does without these
                if refusal:
                    refusals[n] = refusal
            if refusals:
                return refusals
            refusal = await talk.say(b"DATA\r\n", "3") or await talk.say(dropped.content, "2")
            return dict.fromkeys(chosen, refusal) if refusal else {}
        finally:
            await talk.end()

    async def _remove(self, folder: str, name: str) -> None:
        try:
            await self._apart(_remove, folder, name)
        except OSError as error:
            self._stuck.add(name)
            self.listener.observer.trouble("a file in the maildrop is finished but cannot be removed", error, file=name)

    async def _set_aside(self, folder: str, name: str, why: str, *, owner: str = "", worthless: bool = False) -> None:
        """Move a file where the operator finds it: its sender has long gone, and is not told by anybody else."""
        trouble: OSError | None = None
        what = (
            "removed from the maildrop: it is not a message"
            if worthless
            else f"moved to {folder}/{ASIDE}: its sender gets no report"
        )
        try:
            await self._apart(_remove if worthless else _move_aside, folder, name)
        except OSError as error:
            self._stuck.add(name)
            what = "ignored in the maildrop from now on, because it cannot be moved"
            trouble = error
        self.listener.observer.trouble(
            f"a file in the maildrop was refused and was {what}", trouble, file=name, why=why, owner=owner
        )


class _DropDoor(Door):
    """The door of one file: its session belongs to the file's owner, whoever holds the other end of the socket."""

    def __init__(self, whole: ListenerServer, sock: socket.socket, owner: Owner) -> None:
        super().__init__(whole, LISTENER, sock)
        self._file_owner = owner

    def owner(self, transport: asyncio.BaseTransport) -> Owner:
        return self._file_owner


class Talk:
    """Both ends of one session: a listener's session behind a socket pair, and us as its client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, listener: ListenerServer, owner: Owner) -> Talk:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        door = _DropDoor(listener, theirs, owner)
        await loop.connect_accepted_socket(lambda: SmtpSession(loop, door), theirs)
        return cls(*await asyncio.open_unix_connection(sock=ours))

    async def say(self, data: bytes, digit: str) -> str:
        """Say it; return an empty text where the reply begins with `digit`, and a refusal for good. Raises: Later"""
        try:
            async with asyncio.timeout(REPLY_TIME):
                self._writer.write(data)
                await self._writer.drain()
                reply = ""
                while not reply or reply[3:4] == "-":
                    line = await self._reader.readline()
                    if not line:
                        raise Later("the session ended early")
                    reply = line.decode("utf-8", "replace").strip()
        except (OSError, TimeoutError) as error:
            raise Later(f"the session failed: {error}") from error
        if reply.startswith(digit):
            return ""
        if reply.startswith("5"):
            return reply
        raise Later(reply)

    async def end(self) -> None:
        with contextlib.suppress(OSError):
            if not self._writer.is_closing():  # uvloop raises where the session has ended it
                self._writer.write(b"QUIT\r\n")
            self._writer.close()
            await self._writer.wait_closed()


def _session_name(dropped: Dropped, first: int, chosen: Iterable[int]) -> str:
    """Return the name of a session for the recipients with the numbers `chosen`: a bit for each, counted from `first`."""
    return f"{_beginning(dropped)}{first}-{sum(1 << (n - first) for n in chosen):x}"


def _beginning(dropped: Dropped) -> str:
    """Return what the names of all sessions for this very file begin with."""
    return f"{dropped.name}.{dropped.digest}."


def _have(beginning: str, names: Iterable[str]) -> set[int]:
    """Return the numbers of the recipients for whom sessions of those names have brought in a file."""
    have: set[int] = set()
    for name in names:
        first, _, bits = name.removeprefix(beginning).partition("-")
        have.update(int(first) + at for at, bit in enumerate(reversed(f"{int(bits, 16):b}")) if bit == "1")
    return have


def _parts(count: int, have: set[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the numbers of `count` recipients but those in `have`, in parts of at most `most`, each with where it begins."""
    for first in range(0, count, most):
        part = [n for n in range(first, min(first + most, count)) if n not in have]
        if part:
            yield first, part


def _owner(uid: int) -> Owner:
    try:
        return Owner(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Owner(uid)


def _remove(folder: str, name: str) -> None:
    os.unlink(f"{folder}/{name}")  # noqa: PTH108


def _move_aside(folder: str, name: str) -> None:
    aside = f"{folder}/{ASIDE}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(aside, 0o700)  # noqa: PTH102
    found = os.lstat(aside)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(f"{aside} is not a folder that belongs to the daemon")
    os.rename(f"{folder}/{name}", f"{aside}/{name}")  # noqa: PTH104


def _sync(folder: str) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
