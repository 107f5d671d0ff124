"""The listening sockets and the sessions behind them: who may connect, how many, and how all of it ends.

Invariant: a session is held here until its connection is closed and its handler done, so no commit under way is lost.

Runs on: one event loop, asyncio's own or uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from collections.abc import Callable

from sesrelay.listener.offers import Terms
from sesrelay.listener.options import ListenerOptions
from sesrelay.listener.passwords import Verifier
from sesrelay.listener.peer import Owners, same_machine
from sesrelay.listener.replies import GONE, LEAVING, OWNER_NOT_TOLD, OWNERLESS, TOO_MANY, TOO_MANY_OF_YOURS, encode
from sesrelay.listener.rota import Rota
from sesrelay.listener.session import SmtpSession
from sesrelay.listener.sockets import BACKLOG, UnixListener
from sesrelay.mail.envelope import Origin, Owner
from sesrelay.mail.filed import Scratch
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import CLIENT_REFUSED, client_allowed
from sesrelay.policy.budget import MEMORY, ByteBudget, Share
from sesrelay.seams import Intake, Observer

# Without descriptors left, accepting fails and the queue cannot be written: so many are kept from clients.
DESCRIPTORS_KEPT = 48
# Connections that asyncio accepts in one turn of its loop; those of three turns exist at once before a refused one is
# closed. Out of descriptors, asyncio would log a traceback for each accept it tries, up to the backlog.
ACCEPT_AT_ONCE = 8


class Door:
    """One listener and what its sessions need of the whole."""

    def __init__(self, whole: ListenerServer, name: str, sock: socket.socket) -> None:
        self.name = name
        self.unix = sock.family == socket.AF_UNIX
        self.sock = sock
        self.address = sock.getsockname()
        self.intake = whole.intake
        self.observer = whole.observer
        self.terms = whole.terms
        self.verifier = whole.verifier
        self.memory = whole.memory
        self.scratch = whole.scratch
        self.rota = whole.rota
        self._whole = whole
        self.server: asyncio.AbstractServer | None = None

    def admit(self, session: SmtpSession, transport: asyncio.BaseTransport) -> Reply | None:
        """Let a new connection in, or return its refusal."""
        client = "" if self.unix else _client(transport)
        if client is None:
            return self._refused("", GONE, "limits")
        owner = self.owner(transport) if self.unix else None
        counted_as = f"uid {owner.uid}" if isinstance(owner, Owner) else client
        refusal = self._whole.refusal(client, counted_as)
        if refusal is not None:
            return self._refused(client, refusal, "client" if refusal is CLIENT_REFUSED else "limits")
        if not self.unix and session.options.asks_owners:
            owner = self.owner(transport)
        if isinstance(owner, Reply):
            return self._refused(client, owner, "owner")
        session.admitted(client, owner, counted_as)
        self._whole.sessions.add(session)
        self._whole.clients[counted_as] += 1
        self.observer.connected(self.name)
        return None

    def _refused(self, client: str, refusal: Reply, reason: str) -> Reply:
        self.observer.refused(Origin(self.name, client), refusal, reason)
        return refusal

    def owner(self, transport: asyncio.BaseTransport) -> Owner | Reply | None:
        """Return who owns the client's end, or None for another machine's; a refusal where nobody of this one can be told."""
        owners = self._whole.owners
        try:
            if self.unix:
                return owners.of_unix(transport.get_extra_info("socket"))
            client, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            owner = owners.of_tcp(client, here)
        except OSError as error:
            self.observer.trouble(
                "the owner of a connection cannot be determined; its client was told to try again", error, listener=self.name
            )
            return OWNER_NOT_TOLD
        # Whoever could be nobody by hanging up would not be held to what is his.
        return OWNERLESS if owner is None and same_machine(client, here) else owner

    def ended(self, session: SmtpSession) -> None:
        """Forget a session whose connection and handler are both done."""
        if session not in self._whole.sessions:
            return
        self._whole.forget(session)
        self.observer.disconnected(self.name)


class ListenerServer:
    """Mail in: listens where told, hands each message to `intake`, tells `observer`.

    `options` is asked at each connection, so a reload affects new sessions only. `scratch`: see `content.Incoming`.
    """

    def __init__(
        self,
        intake: Intake,
        observer: Observer,
        options: Callable[[], ListenerOptions],
        verifier: Verifier | None = None,
        memory: Share | None = None,
        scratch: Callable[[], Scratch] | None = None,
    ) -> None:
        self.intake = intake
        self.observer = observer
        self.verifier = verifier or Verifier()
        self.owners = Owners()
        self.memory = memory or ByteBudget(MEMORY).incoming
        self.scratch = scratch
        self.rota = Rota()
        self.sessions: set[SmtpSession] = set()
        self.clients: Counter[str] = Counter()
        self._options = options
        self._terms: Terms | None = None
        self._doors: dict[str, Door] = {}
        self._emptied = asyncio.Event()
        self._leaving = False
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(descriptors - max(DESCRIPTORS_KEPT, descriptors // 4), 8)

    def terms(self) -> Terms:
        """Return the terms for a session that begins now."""
        options = self._options()
        if self._terms is None or self._terms.options is not options:
            self._terms = Terms(options)
            self.owners.forget()
        return self._terms

    def refusal(self, client: str, counted_as: str) -> Reply | None:
        """Return why one more connection from `client` is not let in, or None."""
        options = self.terms().options
        if not client_allowed(client, options.networks):
            return CLIENT_REFUSED
        if self._leaving:
            return LEAVING
        if len(self.sessions) >= min(options.connections, self._most):
            return TOO_MANY
        if self.clients[counted_as] >= options.connections_per_client:
            return TOO_MANY_OF_YOURS
        return None

    def forget(self, session: SmtpSession) -> None:
        """Let go of a session that has ended."""
        self.sessions.discard(session)
        self.clients[session.counted_as] -= 1
        if not self.clients[session.counted_as]:
            del self.clients[session.counted_as]
        if not self.sessions:
            self._emptied.set()

    async def listen(self, name: str, sock: socket.socket) -> None:
        """Accept connections on `sock`, a listening socket of `sockets`; `name` is `listen` as configured."""
        loop = asyncio.get_running_loop()
        door = Door(self, name, sock)
        # Not create_unix_server: from Python 3.13 on it removes the socket's file at its end, and systemd's is not ours.
        door.server = await loop.create_server(lambda: SmtpSession(loop, door), sock=sock, backlog=ACCEPT_AT_ONCE)
        sock.listen(BACKLOG)  # asyncio's `backlog` is both figures; the kernel's is to be the larger one
        self._doors[name] = door

    @property
    def listening(self) -> tuple[str, ...]:
        """The names of the listeners that accept connections."""
        return tuple(self._doors)

    @property
    def serving(self) -> frozenset[str]:
        """The names of those that clients can find: not of a Unix socket whose file somebody took away."""
        return frozenset(name for name, door in self._doors.items() if not (isinstance(door.sock, UnixListener) and door.sock.lost))

    def addresses(self) -> dict[str, object]:
        """Return what each listener is really bound to: (host, port, …), or a path."""
        return {name: door.address for name, door in self._doors.items()}

    def unlisten(self, name: str) -> None:
        """Accept no more on one listener; its sessions go on."""
        door = self._doors.pop(name, None)
        if door is not None and door.server is not None:
            door.server.close()
            door.sock.close()  # uvloop would leave the file of a Unix socket behind

    def stop_accepting(self) -> None:
        """Close every listening socket; sessions go on."""
        for name in self.listening:
            self.unlisten(name)

    async def drain(self, grace: float) -> None:
        """Stop accepting, let transactions under way finish for at most `grace` seconds, then cut what is left.

        A message that is being stored is not cut off from its commit, only its client from the reply.
        """
        self.stop_accepting()
        self._leaving = True
        for session in list(self.sessions):
            session.leave()
        await self._until_empty(grace)
        for session in list(self.sessions):
            session.cut(encode(LEAVING))
        await self._until_empty(min(grace, 1.0))
        self.verifier.close()
        self.owners.close()

    async def _until_empty(self, seconds: float) -> None:
        if self.sessions:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), seconds)


def _client(transport: asyncio.BaseTransport) -> str | None:
    """Return the client's address, IPv4-mapped ones as IPv4, or None where it has gone already."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or not peer:
        return None
    host = str(peer[0])
    return host.removeprefix("::ffff:") if "." in host else host
