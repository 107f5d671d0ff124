"""One client's connection: lines and content out of what comes, replies gathered, deadlines, and what a client that drops undoes.

A line is answered in the very callback that brings it, unless it is others' turn, see `rota`; where very many have come, some at a
time. What cannot be answered at once (content, a password to be verified, TLS) is a coroutine that the callbacks carry on, see
`steps`; until it has ended nothing else that the client says is looked at.

Invariant: one reply to each command line, however the stream is split.
Invariant: what is stored is never cancelled: not while `uninterrupted` is set.
Invariant: nothing that came in clear text is read once TLS has begun (CVE-2011-0411).
Runs on: asyncio's own loop or uvloop; TCP, Unix sockets, TLS.

Source: RFC 5321 §4.5.3.2 (timeouts), RFC 2920 (pipelining), RFC 3207 §4.2.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from sesrelay.listener.answers import Answers, Work
from sesrelay.listener.content import Feed
from sesrelay.listener.deadlines import Deadlines, Watch
from sesrelay.listener.lines import Fault, LineTaker
from sesrelay.listener.replies import TIMED_OUT, encode
from sesrelay.listener.rota import Place, Rota
from sesrelay.listener.steps import INPUT, Steps

READ_LIMIT = 64 * 1024  # octets: a client that is twice as far ahead is not read from until no more than these are left
WRITE_SOON = 16 * 1024  # octets: replies are not gathered beyond this
AT_ONCE = 128  # lines of one client that are answered before others are looked at, and then the next ones
GOODBYE = 5.0  # seconds that a client has to answer the end of TLS


class ClientGone(Exception):
    """The client closed the connection in the middle of a message."""


class Wire(Answers, asyncio.Protocol):
    """One connection; what to answer is said by a subclass, see `Answers`.

    `transport` is None before the client is let in and once the connection is lost. `closing`: nothing more is answered.
    `idle`: it is the client's turn to say a command. `secured`: under TLS.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, rota: Rota) -> None:
        self.loop = loop
        self.place = Place()
        self.transport: asyncio.Transport | None = None
        self.closing = False
        self.idle = False
        self.uninterrupted = False
        self.secured = False
        self._rota = rota
        self._buffer = bytearray()
        self._lines = LineTaker()
        self._out: list[bytes] = []
        self._watch = Watch(loop, deadlines, self._look)
        self._work: Steps | None = None  # what takes longer than the callback that began it
        self._answering = False
        self._handshaking = False
        self._halted = False  # it is not read from
        self._clogged = False  # it does not read
        self._eof = False
        self._over = True  # there is no connection, or it has been told that there is none any more

    # --- the connection's life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance anywhere: uvloop's transports are no subclasses of asyncio's.
        connection = cast(asyncio.Transport, transport)
        refusal = self.admit(transport)
        if refusal is not None:
            self.closing = True
            self._watch.stop()
            if not self.awaits_tls:
                connection.write(encode(refusal))
            connection.close()
            return
        self.transport = connection
        self._over = False
        self._watch.start(self._watch.limits.silence)
        work = self.begin()
        if work is not None:
            self._undertake(work)  # at once: where TLS is awaited, its protocol has to be there before the first octet
        self._go_on()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._watch.line_begun and b"\n" in data:
            self._watch.line_ended()  # now: what it waits in line is not the client's time
        if len(buffer) > 2 * READ_LIMIT and not (self._halted or self._handshaking):
            self._halt()
        self._rota.ask(self, len(data))

    def eof_received(self) -> bool:
        """Answer what came before: `printf … | nc -N` sends all its commands and half-closes."""
        if self.closing:
            return False
        self._eof = True
        self.proceed()
        return not (self.secured or self._handshaking)  # TLS has no half-open end: what is still to be said would not arrive

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self.loop.call_soon(self._go_on)  # not from within: a transport that is closed here, asyncio's would end twice

    def connection_lost(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._watch.stop()
        self.transport = None
        if self._work is None:
            self.ended()
        elif not self.uninterrupted and not self._handshaking:  # a handshake ends by itself, and is told of
            self._work.cancel()

    # --- what the client says ---

    def proceed(self) -> None:
        """Answer what has come, or go on with what is under way, as far as that can be done now."""
        if self._work is None:
            self._go_on()
        else:
            self._work.go_on()

    def _go_on(self) -> None:
        """Answer what has come, as far as that can be done now; close where all has been said."""
        if self._answering or self._over or self._work is not None:
            return
        self._answering = True
        try:
            self._answer()
        except Exception as error:  # a fault of ours, and none of a command's
            self.failed(error)
            self.closing = True
        finally:
            self._answering = False
        if self.closing and self._work is None:
            self._close()

    def _answer(self) -> None:
        buffer, out, left = self._buffer, self._out, AT_ONCE
        while not (self.closing or self._clogged or self._work):
            if left <= 0 and b"\n" in buffer and not (self._eof and self.secured):  # then it would not arrive, see eof_received
                if len(buffer) > READ_LIMIT and not self._halted:
                    self._halt()
                self.flush()
                self._watch.allow_more(0.0)
                self._rota.ask_again(self)
                return
            left -= 1
            line = self._take_line() if buffer else None
            if line is None:
                self._watch.expect_line(begun=self._in_the_middle())
                self.idle = True
                self.closing = self._eof
                self.flush()
                return
            self.idle = False
            if isinstance(line, Fault):
                self._faulty(line)
                continue
            try:
                work = self.command(line)
            except Exception as error:
                self.say(self.fault(error))
                work = None
            if work is None:
                self.after_command()
            else:
                self._undertake(work)
            if len(out) > 64 and sum(map(len, out)) > WRITE_SOON:
                self.flush()

    def _undertake(self, work: Work) -> None:
        """Begin what may take longer; it may have ended when this returns."""
        self._work = Steps(work, self.loop, self._ended, self._ready)
        self._work.start()

    def _ready(self) -> None:
        """What was undertaken can go on."""
        self._rota.ask(self, 0)

    def _ended(self, error: BaseException | None) -> None:
        """Go on behind what was undertaken. `error`: what it ended by."""
        self._work = None
        if isinstance(error, ClientGone) or (isinstance(error, asyncio.CancelledError) and self._over):
            self.closing = True
        elif error is not None:
            self.say(self.fault(error))
        if self._over:
            self.ended()
        else:
            self.after_command()
            self._go_on()

    def _close(self) -> None:
        """Say what is gathered, and close."""
        if self.transport is not None and not self.transport.is_closing():
            self.flush()
            self._watch.allow(self._watch.grace)
            self.transport.close()

    # --- replies ---

    def say(self, reply: bytes) -> None:
        """Gather a reply; it is written when the client's input is used up."""
        self._out.append(reply)

    def flush(self) -> None:
        """Write what is gathered, in one write."""
        out, transport = self._out, self.transport
        if not out:
            return
        # uvloop raises where asyncio ignores a write to a transport that is being closed.
        if transport is not None and not transport.is_closing():
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def cut(self, last_words: bytes) -> None:
        """End the connection, whatever is under way."""
        if self.transport is None or self.closing:
            return
        self.closing = True
        if self._handshaking or self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not read: close() would wait for that for ever
        else:
            self.say(last_words)
            self.flush()
            self.transport.close()

    # --- TLS ---

    async def secure(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """Begin TLS as its server, and drop what came in clear text behind the command that asked for it.

        Raises: OSError (ssl.SSLError, ConnectionError), after which the connection is closed.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._eof:
            raise ConnectionResetError
        self.flush()
        if self._clogged:  # from below TLS nobody would tell us that it reads again
            raise ConnectionResetError("the client does not read")
        self._buffer.clear()
        if self._halted:
            self._read_on()
        self._lines = LineTaker()
        self._watch.line_ended()
        self._watch.allow(2 * self._watch.grace)  # should the handshake's own deadline fail
        self._handshaking = True
        try:
            secured = await self.loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._watch.grace,
                ssl_shutdown_timeout=GOODBYE,
            )
            # A connection that is lost in the handshake: asyncio returns None, uvloop a transport that never spoke TLS.
            connection: ssl.SSLObject | None = secured.get_extra_info("ssl_object") if secured is not None else None
            if secured is None or connection is None or self._over:
                raise ConnectionResetError
        except OSError:
            transport.abort()
            self.loop.call_soon(self.connection_lost, None)  # the loops tell of some handshakes that fail, not of others
            raise
        finally:
            self._handshaking = False
        self.transport = secured
        self.secured = True
        return connection

    # --- deadlines ---

    def grant(self, seconds: float) -> None:
        """Give the client so much more time, because it waits for us."""
        self._watch.allow_more(seconds)

    @property
    def in_a_line(self) -> bool:
        """Whether some of a line has come, and not all."""
        return self._watch.line_begun

    def forgive_slowness(self) -> None:
        """Let the client begin anew with the time that its lines may take in all."""
        self._watch.forgive()

    def _look(self, now: float) -> bool:
        """Do what is to be done once a deadline has passed; tell whether there is another."""
        watch = self._watch
        if self.uninterrupted or self.place.in_line:
            watch.deadline = now + watch.grace
        elif now >= watch.deadline:
            if self.closing:
                if self.transport is not None:
                    self.transport.abort()
                return False
            self.timed_out()
            self.cut(encode(TIMED_OUT))
            watch.deadline = now + watch.grace
        return True

    # --- input ---

    async def read_line(self) -> bytearray | None:
        """Return a line that belongs to the command under way, under the same limits and deadlines as a command line.

        None: there is none; whatever is to be said about that has been said.
        """
        while not self.closing:
            line = self._take_line()
            if isinstance(line, Fault):
                self._faulty(line)
                return None
            if line is not None:
                return line
            self._watch.expect_line(begun=self._in_the_middle())
            if not await self._more():
                return None
        return None

    def content_ends(self) -> float:
        """Return the time on the loop's clock by which a message that begins now is to have come."""
        return self.loop.time() + self._watch.limits.content

    async def read_content(self, feed: Feed, ends: float) -> None:
        """Give `feed` what comes, up to its end. Units: `ends` on the loop's clock. Raises: ClientGone"""
        buffer, watch = self._buffer, self._watch
        watch.expect_content(ends)
        while True:
            if buffer:
                octets = len(buffer)
                ended = feed.feed(buffer)
                if self._halted:
                    self._read_on()
                if ended:
                    return
                watch.earn(octets, ends)
                if feed.incoming is not None and feed.incoming.heavy:
                    await feed.incoming.lighten()
            elif not await self._more():
                raise ClientGone

    async def _more(self) -> bool:
        """Write what is gathered and wait for input; False at its end."""
        if not self.closing:
            self.flush()
        if self.closing or self._eof:
            return False
        await INPUT
        return True

    def _take_line(self) -> bytearray | Fault | None:
        line = self._lines.take(self._buffer)
        if line is not None and self._watch.line_begun:
            self._watch.line_ended()
        if self._halted:
            self._read_on()
        return line

    def _faulty(self, fault: Fault) -> None:
        self.malformed(fault)
        if fault is Fault.ENDLESS:
            self.closing = True

    def _in_the_middle(self) -> bool:
        """Tell whether a line has begun and not ended."""
        return bool(self._buffer) or self._lines.skipping > 0

    def _halt(self) -> None:
        """Read no more from the client, until little is left of what it has sent."""
        if self.transport is not None:
            self._halted = True
            self.transport.pause_reading()

    def _read_on(self) -> None:
        """Read from the client again, once little is left of what it has sent."""
        if len(self._buffer) <= READ_LIMIT and self.transport is not None:
            self._halted = False
            self.transport.resume_reading()
