"""aiosmtpd's protocol made quick and hard to hold up: the one module that relies on its and asyncio's private names.

What differs from aiosmtpd 1.4.6, each with a test of its own:
content comes in pieces of any size instead of line by line; replies are gathered and written when the input is used
up; a command line is cut at 4 KiB and ends with CR LF only; one timer a session watches deadlines that progress
moves; a client that drops or half-closes cancels nothing that is being stored or still has commands in the buffer; TLS
begins by the loop's own start_tls, from the first octet or later, and fails without a traceback.

Invariant: the handler is never cancelled while `uninterrupted` is set.
Invariant: one reply to each command line, however the stream is split.
Invariant: nothing that came in clear text is read once TLS has begun (CVE-2011-0411).

Source: RFC 5321 §4.5.3.2 (timeouts), RFC 2920 (pipelining), RFC 3207 §4.2.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import AnyStr, cast

from aiosmtpd.smtp import SMTP, Session

from sesrelay.listener.answers import Answers
from sesrelay.listener.content import Feed
from sesrelay.listener.deadlines import Deadlines, Watch
from sesrelay.listener.lines import Fault, LineTaker
from sesrelay.listener.replies import TIMED_OUT, encode
from sesrelay.listener.steps import INPUT, Steps

# aiosmtpd logs each line a client says; the Observer is told what matters instead.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

READ_LIMIT = 64 * 1024  # asyncio stops reading from a client at twice this
WRITE_SOON = 16 * 1024  # replies are not gathered beyond this
GOODBYE = 5.0  # seconds that a client has to answer the end of TLS


class ClientGone(Exception):
    """The client closed the connection in the middle of a message."""


class Wire(Answers, SMTP):
    """One connection; what to answer is said by a subclass, see `Answers`."""

    _reader: asyncio.StreamReader

    def __init__(self, loop: asyncio.AbstractEventLoop, hostname: str, deadlines: Deadlines) -> None:
        # Not SMTP.__init__: it inspects every member of class and handler anew, a third of what a connection costs.
        asyncio.StreamReaderProtocol.__init__(
            self, asyncio.StreamReader(limit=READ_LIMIT, loop=loop), client_connected_cb=self._cb_client_connected, loop=loop
        )
        self.loop = loop
        self.hostname = hostname
        self.enable_SMTPUTF8 = True
        self.transport = None
        self.session = None
        self.envelope = None
        self.tls_context = None
        self._original_transport = None
        self._tls_protocol = None
        self._tls_handshake_okay = True
        self._handler: Steps | None = None
        self._handle_hooks = {}
        self._out: list[bytes] = []
        self._lines = LineTaker()
        self._watch = Watch(loop, deadlines, self._look)
        self.closing = False
        self.idle = False
        self.uninterrupted = False
        self.secured = False
        self._handshaking = False
        self._lost = False

    # --- the connection's life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = self.admit(transport)
        if refusal is not None:
            self.closing = True
            if not self.awaits_tls:
                cast(asyncio.Transport, transport).write(encode(refusal))
            transport.close()
            return
        # As the base class does, but for its task.
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self._reset_timeout()
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = cast(asyncio.Transport, transport)
        self._handler = Steps(self._handle_client(), self.loop, self._handled)
        self._handler.start()  # at once: where TLS is awaited, its protocol has to be there before the first octet

    def data_received(self, data: bytes) -> None:
        buffer = self._reader._buffer  # type: ignore[attr-defined]
        if len(buffer) + len(data) > 2 * READ_LIMIT:
            self._reader.feed_data(data)  # which stops the client until some of it is taken
        else:
            buffer += data  # nobody but the handler waits for the reader
        if self._handler is not None:
            self._handler.input_came()

    def connection_lost(self, error: Exception | None) -> None:
        if self._handler is None or self._lost:  # never admitted, or told already
            return
        self._lost = True
        self._watch.stop()
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        if self._handler.done:
            self._over()
        elif not self.uninterrupted and not self._handshaking:  # a handshake ends by itself, and is told of
            self._handler.cancel()

    def _handled(self, error: BaseException | None) -> None:
        if error is not None:
            self.failed(error)
        if self.transport is None:
            self._over()

    def _over(self) -> None:
        self.ended()
        # Or they and the session would keep each other, and what TLS takes, until a collection.
        self._handler = self._client_connected_cb = self._stream_writer = None
        del self._writer

    def eof_received(self) -> bool | None:
        # The base class cancels the handler: commands that `printf … | nc -N` had sent before would go unanswered.
        if self.closing:
            return False
        self._reader.feed_eof()
        if self._handler is not None:
            self._handler.input_came()
        return not self.secured  # TLS has no half-open end: what is still to be said would not arrive

    def _create_session(self) -> Session:
        return Session(self.loop)

    # --- replies ---

    def say(self, reply: bytes) -> None:
        """Gather a reply; it is written when the client's input is used up."""
        self._out.append(reply)

    async def push(self, status: AnyStr) -> None:
        """Gather a reply as aiosmtpd's own commands give it, without its line end."""
        line: str | bytes = status
        self._out.append((line.encode("ascii", "backslashreplace") if isinstance(line, str) else line) + b"\r\n")

    def flush(self) -> None:
        """Write what is gathered, in one write."""
        # uvloop raises where asyncio ignores a write to a transport that is being closed.
        if self._out and self.transport is not None and not self.transport.is_closing():
            out = self._out
            self._writer.write(out[0] if len(out) == 1 else b"".join(out))
        self._out.clear()

    def cut(self, last_words: bytes) -> None:
        """End the connection from outside of its handler."""
        if self.transport is None or self.closing:
            return
        self.closing = True
        # No isinstance anywhere: uvloop's transports are no subclasses of asyncio's.
        transport = cast(asyncio.Transport, self.transport)
        if self._handshaking or transport.get_write_buffer_size():
            transport.abort()  # it does not read: close() would wait for that for ever
        else:
            self._out.append(last_words)
            self.flush()
            transport.close()

    # --- TLS ---

    async def secure(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """Begin TLS as its server, and drop what came in clear text behind the command that asked for it.

        Raises: OSError (ssl.SSLError, ConnectionError), after which the connection is closed.
        """
        transport, reader = self.transport, self._reader
        if transport is None or transport.is_closing() or reader._eof:  # type: ignore[attr-defined]
            raise ConnectionResetError
        self.flush()
        self._drop(reader._buffer, len(reader._buffer))  # type: ignore[attr-defined]
        self._lines = LineTaker()
        self._watch.line_ended()
        reader._transport = None  # type: ignore[attr-defined]  # or it would stop the octets below TLS
        self._watch.allow(2 * self._watch.grace)  # should the handshake's own deadline fail
        self._handshaking = True
        try:
            secured = await self.loop.start_tls(
                cast(asyncio.Transport, transport),
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._watch.grace,
                ssl_shutdown_timeout=GOODBYE,
            )
            # A connection that is lost in the handshake: asyncio returns None, uvloop a transport that never spoke TLS.
            connection: ssl.SSLObject | None = secured.get_extra_info("ssl_object") if secured is not None else None
            if secured is None or connection is None or self._lost:
                raise ConnectionResetError
        except OSError:
            cast(asyncio.Transport, transport).abort()
            self.loop.call_soon(self.connection_lost, None)  # the loops tell of some handshakes that fail, not of others
            raise
        finally:
            self._handshaking = False
        self.transport = self._transport = reader._transport = self._writer._transport = secured  # type: ignore[attr-defined]
        self._over_ssl = self.secured = True
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

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._watch.start(duration or self._watch.limits.silence)

    def _look(self, now: float) -> bool:
        """Do what is to be done once a deadline has passed; tell whether there is another."""
        watch = self._watch
        if self.uninterrupted:
            watch.deadline = now + watch.grace
        elif now >= watch.deadline:
            if self.closing:
                if self.transport is not None:
                    cast(asyncio.Transport, self.transport).abort()
                return False
            self.timed_out()
            self.cut(encode(TIMED_OUT))
            watch.deadline = now + watch.grace
        return True

    # --- input ---

    async def _handle_client(self) -> None:
        try:
            if await self.begin():
                self._out.append(self.banner())
                await self._serve()
        except (ConnectionError, ClientGone):
            pass
        finally:
            self.closing = True
            self.flush()
            self._watch.allow(self._watch.grace)
            self._writer.close()

    async def _serve(self) -> None:
        buffer = self._reader._buffer  # type: ignore[attr-defined]
        while not self.closing:
            line = self._take_line(buffer)
            if line is None:
                self._watch.expect_line(begun=bool(buffer or self._lines.skipping))
                self.idle = True
                if not await self._more():
                    return
                self.idle = False
                continue
            if isinstance(line, Fault):
                self._faulty(line)
                continue
            try:
                await self.command(line)
            except (ConnectionError, ClientGone):
                raise
            except Exception as error:
                await self.push(await self.handle_exception(error))
            self.after_command()
            if len(self._out) > 64 and sum(map(len, self._out)) > WRITE_SOON:
                self.flush()
                await self._writer.drain()

    async def read_line(self) -> bytearray | None:
        """Return a line that belongs to the command under way, under the same limits and deadlines as a command line.

        None: there is none; whatever is to be said about that has been said. Raises: ConnectionError
        """
        buffer = self._reader._buffer  # type: ignore[attr-defined]
        while not self.closing:
            line = self._take_line(buffer)
            if isinstance(line, Fault):
                self._faulty(line)
                return None
            if line is not None:
                return line
            self._watch.expect_line(begun=bool(buffer or self._lines.skipping))
            if not await self._more():
                return None
        return None

    def _take_line(self, buffer: bytearray) -> bytearray | Fault | None:
        line = self._lines.take(buffer)
        if line is not None and self._watch.line_begun:
            self._watch.line_ended()
        if self._reader._paused:  # type: ignore[attr-defined]
            self._reader._maybe_resume_transport()  # type: ignore[attr-defined]
        return line

    def _faulty(self, fault: Fault) -> None:
        self.malformed(fault)
        if fault is Fault.ENDLESS:
            self.closing = True

    def _drop(self, buffer: bytearray, octets: int) -> None:
        del buffer[:octets]
        if self._reader._paused:  # type: ignore[attr-defined]
            self._reader._maybe_resume_transport()  # type: ignore[attr-defined]

    async def _more(self) -> bool:
        """Write what is gathered and wait for input; False at its end. Raises: ConnectionError"""
        if self.closing:
            return False
        if self._out:
            self.flush()
            if self._paused:  # type: ignore[attr-defined]
                await self._drain_helper()  # type: ignore[attr-defined]
                return True  # input may have come meanwhile
        reader = self._reader
        if reader._eof:  # type: ignore[attr-defined]
            return False
        if reader._paused:  # type: ignore[attr-defined]
            reader._maybe_resume_transport()  # type: ignore[attr-defined]
        await INPUT
        return True

    def content_ends(self) -> float:
        """Return the time on the loop's clock by which a message that begins now is to have come."""
        return self.loop.time() + self._watch.limits.content

    async def read_content(self, feed: Feed, ends: float) -> None:
        """Give `feed` what comes, up to its end. Units: `ends` on the loop's clock.

        Raises: ClientGone, ConnectionError
        """
        buffer, watch = self._reader._buffer, self._watch  # type: ignore[attr-defined]
        watch.expect_content(ends)
        while True:
            if buffer:
                octets = len(buffer)
                rest = feed.feed(buffer)
                self._drop(buffer, octets)
                if rest is not None:
                    buffer += rest
                    return
                watch.earn(octets, ends)
                if feed.incoming is not None and feed.incoming.heavy:
                    await feed.incoming.lighten()
            elif not await self._more():
                raise ClientGone
