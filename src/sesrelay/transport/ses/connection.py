"""One HTTP connection to SES: a request goes out, its answer comes back, and the next may follow.

Invariant: `NotSent` is returned only where the service cannot have the whole request, and a part of one it cannot take: its length
is told at the beginning, and the signature covers all of it. So the end of a body is kept back until the rest is gone, and
only once that end was handed over a failure is a doubt.
Invariant: an answer that nobody waits for ends the connection: from then on no answer could be told from another's.
Runs on: asyncio's own loop or uvloop; TCP or TLS.

Source: RFC 9112 §6 (length of a message), §9.3 (persistence); RFC 9110 §15.2 (interim answers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from sesrelay.mail.value import value
from sesrelay.transport.net.plainly import plainly
from sesrelay.transport.net.waiting import Waiting
from sesrelay.transport.ses.body import Measured

AT_ONCE = 64 * 1024  # octets of a body that are handed to the kernel in one go, which mostly has room for them
END = 1024  # octets of a larger one that are kept back
ANSWER_MAX = 64 * 1024  # octets; real answers have a few hundred
CLOSED = "the connection was closed"
LATE = "no answer in time"
STUCK = "it stopped reading the request"
GARBAGE = "what it sent is not a valid answer"
OUT_OF_TURN = "it sent an answer that was not requested"
ENDLESS = "its answer never ended"
Leaves = Callable[[], None]


def nobody_asks() -> None:
    """Do nothing: nobody wants to know when a request has left."""


@value(frozen=True, slots=True)
class Answered:
    """Something answered by HTTP; whether it was SES is for the reader of `body` to tell. `headers`: by name in lower case;
    `whole`: it may have had the whole request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    tls: str | None = None
    whole: bool = True


@value(frozen=True, slots=True)
class NotSent:
    """The request did not leave, as where no connection could be made: it was certainly not accepted.

    `cut`: a part of it may have left.
    """

    why: str
    cut: bool = False


@value(frozen=True, slots=True)
class Lost:
    """The request may have gone out as a whole, and no whole answer came back."""

    why: str


class Connection(Waiting):
    """With one caller at a time. `below`: what is under all TLS, and ends everything above it when it ends.

    Units: `born`, `since` (unused) on the loop's clock.
    """

    _headers: dict[str, str]
    _parts: list[bytes]

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__(LATE)
        self._below = below
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        # As hosts that are not AWS's may answer: what was accepted and is not understood would be sent again.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._paused = False
        self._patience = self._ends = 0.0
        self._leaves: Leaves = nobody_asks
        self._asked = self._begun = self._whole = False
        self._forget()
        self.tls: str | None = None
        self.born = self.since = self._loop.time()

    @property
    def usable(self) -> bool:
        """Whether another request may follow."""
        return self.lost is None and not self._asked and self._transport is not None and not self._transport.is_closing()

    async def post(
        self, head: bytes, body: Measured, patience: float, ends: float, leaves: Leaves = nobody_asks
    ) -> Answered | NotSent | Lost:
        """Send a request once and return what came of it; where another may not follow, the connection is closed then.

        `leaves` is told just before the request is handed over as a whole: who is cancelled before that has not sent it.
        Units: `patience` seconds from one octet of the answer to the next, once all has left; `ends` on the loop's clock.
        """
        self._forget()
        self._asked, self._begun, self._whole = True, False, False
        self._patience, self._ends, self._leaves = patience, ends, leaves
        follows = False
        try:
            await self._send(head, body)
            while self.lost is None and not self._complete:
                await self._wait(min(self._loop.time() + patience, ends))
            if self._complete:
                follows = self._whole and self._follows and self.lost is None
                return Answered(self._status, self._headers, b"".join(self._parts), self.tls, self._whole)
            return Lost(self.lost or CLOSED) if self._whole else NotSent(self.lost or CLOSED, cut=self._begun)
        except TimeoutError:
            return NotSent(STUCK, cut=self._begun)
        except Exception as error:  # as of a body that is read while it leaves
            return Lost(plainly(error)) if self._whole else NotSent(plainly(error), cut=self._begun)
        finally:
            self._asked = False
            if not follows:
                self.close()

    def close(self) -> None:
        """Close at once: what is still to be written, nobody waits for."""
        self._lose(CLOSED)

    # --- sending ---

    async def _send(self, head: bytes, body: Measured) -> None:
        """Hand the request over, as far as the host wants it.

        What is small goes at once; of the rest END octets are kept back until all others are gone. Raises: TimeoutError, while
        they are kept back; whatever a body raises that is read as it leaves
        """
        if body.whole is not None and body.size <= AT_ONCE:
            self._write(head + body.whole, last=True)
            return
        async with asyncio.timeout_at(self._ends):
            self._write(head)
            held: bytes | memoryview = b""
            async for piece in body.pieces():
                if not await self._goes_on():
                    return
                self._write(held)
                held = piece
            self._write(held[:-END])
            if not await self._drained():
                return
        self._write(held[-END:], last=True)

    def _write(self, octets: bytes | memoryview, *, last: bool = False) -> None:
        transport = self._transport
        if self.lost is not None or transport is None or transport.is_closing():
            self._lose(CLOSED)
            return
        self._begun = True
        self._whole = last
        if last:
            self._leaves()
        transport.write(octets)

    async def _goes_on(self) -> bool:
        """Wait until there is room for more, and let others have a turn; False where no more is wanted."""
        while self._paused and not self._over:
            await self._wait(None)  # `_send` has its own time-out
        await asyncio.sleep(0)
        return not self._over

    async def _drained(self) -> bool:
        """Wait until all has left this process, as far as that can be told; False: see `_goes_on`.

        Over TLS it is until all is encrypted.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            self._lose(CLOSED)
            return False
        transport.set_write_buffer_limits(high=1)  # with 0 asyncio's TLS never goes on
        goes_on = await self._goes_on()
        if goes_on:
            transport.set_write_buffer_limits()
        return goes_on

    @property
    def _over(self) -> bool:
        return self.lost is not None or self._complete

    def _lose(self, why: str) -> None:
        super()._lose(why)
        self._below.abort()

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance anywhere: uvloop's transports are no subclasses of asyncio's.
        self._transport = transport  # type: ignore[assignment]
        secured = transport.get_extra_info("ssl_object")
        self.tls = secured.version() if secured is not None else None

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._lose(OUT_OF_TURN)
            return
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._follows = False
            if not self._complete:
                self._lose(f"{GARBAGE}: {error}")
        if self._came > ANSWER_MAX and not self._complete:
            if self._parts:
                self._end()
            else:
                self._lose(ENDLESS)
        if self._complete:
            self._wake()
        elif self._whole and self._deadline is not None:
            self._deadline = min(self._loop.time() + self._patience, self._ends)

    def eof_received(self) -> None:
        self._gone(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._gone(error)
        self._transport = None

    def _gone(self, error: Exception | None) -> None:
        if error is None and self._until_closed and not self._over:
            self._end()
            self._wake()
        self._lose(f"{CLOSED} ({error})" if error else CLOSED)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        self._follows = False  # a second answer, if the first is complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete:
            self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self._until_closed = not {"content-length", "transfer-encoding"} & self._headers.keys()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if 100 <= self._parser.get_status_code() < 200:
            self._headers, self._until_closed = {}, False
        else:
            self._end()
            self._follows = self._parser.should_keep_alive()

    def _end(self) -> None:
        """Take the answer as it is: it is all there, or no more of it comes or is wanted."""
        self._status, self._complete = self._parser.get_status_code(), True

    def _forget(self) -> None:
        """Be ready for an answer."""
        self._status = self._came = 0
        self._headers = {}
        self._parts = []
        self._complete = self._until_closed = self._follows = False
