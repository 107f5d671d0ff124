"""The line to an SMTP host once it is open: what we say goes out in as few writes as can be, what it says comes back in order.

The greeting, EHLO, TLS and the login are aiosmtplib's; its transport is taken over from there. No command is known here.

Invariant: a reply that nobody waits for ends the dialogue: from then on no answer could be told from another's.
Invariant: 421 is the last word of a host, wherever it comes.
Runs on: asyncio's own loop or uvloop; TCP or TLS.

Source: RFC 5321 §3.8 (421), §4.5.3.2 (timeouts); RFC 2920 §3.1 (replies come in the order of the commands).
"""

from __future__ import annotations

import asyncio

from sesrelay.transport.client.replies import Garbage, ReplyReader, Said
from sesrelay.transport.net.waiting import Waiting

CLOSED = "it closed the connection"
LATE = "it did not answer in time"
STUCK = "it stopped reading"
OUT_OF_TURN = "it sent a reply before it was asked"
SHUTTING_DOWN = 421


class Dialogue(Waiting):
    """One connection, with one caller at a time."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        super().__init__(LATE)
        self._reader = ReplyReader()
        self._said: list[Said] = []
        self._expected = 0
        self._draining = self._paused = False
        self._patience = 0.0
        self._transport = transport
        if transport is None or transport.is_closing():
            self.lost = CLOSED
            return
        transport.set_protocol(self)
        # Pause as soon as anything waits, and go on when all has left: see `drain`. With 0, TLS would never resume.
        transport.set_write_buffer_limits(high=1, low=0)

    @property
    def open(self) -> bool:
        return self.lost is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, octets: bytes, count: int, patience: float) -> list[Said]:
        """Send, and return `count` replies, or those that came before the host was lost or said 421.

        Units: `patience` seconds, for each reply anew.
        """
        if self.expect(count) and self._transport is not None:
            self._transport.write(octets)
        return await self.replies(patience)

    def expect(self, count: int) -> bool:
        """Begin to wait for so many replies; tell whether any can come."""
        self._said = []
        self._expected = count
        if self.open:
            return True
        self._lose(CLOSED)
        return False

    def send(self, octets: bytes) -> None:
        """Write, unless the dialogue is over."""
        if self.open and self._transport is not None:
            self._transport.write(octets)
        else:
            self._lose(CLOSED)

    @property
    def early(self) -> Said | None:
        """The first reply to what was expected, if it is there already."""
        return self._said[0] if self._said else None

    async def replies(self, patience: float) -> list[Said]:
        """Return what was expected, or those that came before the host was lost or said 421. Units: see `ask`."""
        self._too_late, self._patience = LATE, patience
        while self.lost is None and len(self._said) < self._expected:
            await self._wait(self._loop.time() + patience)
        return self._said

    async def drain(self, patience: float) -> None:
        """Wait until all has left, or a reply or the end has come; let others have a turn. Units: `patience` seconds."""
        if self.lost is not None or self._said:
            return
        if not self._paused:
            await asyncio.sleep(0)
            return
        self._too_late, self._patience = STUCK, patience
        self._draining = True
        try:
            await self._wait(self._loop.time() + patience)
        finally:
            self._draining = False

    def leave(self, farewell: bytes) -> None:
        """Send `farewell`, wait for nothing, and close."""
        if self.open and self._transport is not None:
            self._transport.write(farewell)
            self._transport.close()
        self._lose(CLOSED, abort=False)

    def abort(self) -> None:
        """Close at once: what is still to be written would wait for a host that no longer reads."""
        self._lose(CLOSED)
        if self._transport is not None:
            self._transport.abort()

    # --- what the transport calls ---

    def data_received(self, data: bytes) -> None:
        said, expected = self._said, self._expected
        had = len(said)
        if self.lost is not None:
            return
        if had >= expected:
            self._lose(OUT_OF_TURN)
            return
        fault = None
        try:
            self._reader.feed(data, said)
        except Garbage as error:
            fault = str(error)
        for place, reply in enumerate(said[had:expected], had):
            if reply.code == SHUTTING_DOWN:
                del said[place + 1 :]
                self._lose(CLOSED)
                return
        have = len(said)
        if have > expected or (have == expected and (fault or self._reader.midway)):
            del said[expected:]
            fault = OUT_OF_TURN
        if fault is not None:
            self._lose(fault)
        elif have == expected:
            self._wake()
        elif have > had and self._deadline is not None:
            self._deadline = self._loop.time() + self._patience

    def eof_received(self) -> None:
        self._lose(CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"{CLOSED} ({exc})" if exc else CLOSED, abort=False)
        self._transport = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._draining:
            self._wake()

    def _lose(self, why: str, *, abort: bool = True) -> None:
        if self.lost is not None:
            return
        super()._lose(why)
        if abort and self._transport is not None:
            self._transport.abort()
