"""One SMTP session: its state, which verb a line calls, and what each refusal costs the client.

Invariant: a session keeps the options it began with, and so who may send as whom in it.
Invariant: only the intake's own reply says that a message is ours; a client that drops does not undo its commit.
Invariant: every reply but those to HELO, EHLO, DATA (354) and the banner has an enhanced status code.

Source: RFC 5321 §4.1, §4.3.2; RFC 2034; RFC 2920.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from sesrelay.listener.answers import Work
from sesrelay.listener.costs import ERROR, FREE
from sesrelay.listener.deadlines import Deadlines
from sesrelay.listener.lines import Fault
from sesrelay.listener.replies import (
    BAD_OCTETS,
    BARE_LF,
    JUNK,
    LEAVING,
    LINE_TOO_LONG,
    LOCAL_ERROR,
    NO_COMMAND,
    NOT_HTTP,
    TIMED_OUT,
    UNKNOWN,
    encode,
)
from sesrelay.listener.starttls import handshake
from sesrelay.listener.verbs import VERBS
from sesrelay.listener.wire import Wire
from sesrelay.mail.envelope import Origin, Owner
from sesrelay.mail.reply import Reply

if TYPE_CHECKING:
    from sesrelay.listener.listening import Door
    from sesrelay.listener.transaction import Transaction

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FIELD = re.compile(r"[!-9;-~]+:(?: |\Z)")
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"})


class SmtpSession(Wire):
    """One client, from the banner to the end of the connection. The verbs change it; see `verbs`.

    `helo` is empty until the client has said its name; `reading`: what the client sends is content, not commands.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door) -> None:
        self.door = door
        self.terms = door.terms()
        self.options = options = self.terms.options
        self.door_options = options.door(door.name)
        super().__init__(
            loop,
            Deadlines(options.command_timeout, options.line_timeout, options.min_rate, options.content_time),
            door.rota,
        )
        self.client = ""
        self.owner: Owner | None = None
        self.counted_as = ""
        self.helo = ""
        self.user: str | None = None
        self.authenticated = False
        self.failed_logins = 0
        self.tls: str | None = None
        self.origin = Origin(door.name)
        self.transaction: Transaction | None = None
        self.reading = False
        self._junk = options.junk
        self._leaving = False

    # --- what Wire asks ---

    def admit(self, transport: asyncio.BaseTransport) -> Reply | None:
        return self.door.admit(self, transport)

    def admitted(self, client: str, owner: Owner | None, counted_as: str) -> None:
        """Take note of who connected, and under which name his connections are counted."""
        self.client, self.owner, self.counted_as = client, owner, counted_as
        self.introduce("")

    @property
    def awaits_tls(self) -> bool:
        return self.door_options.tls == "implicit"

    def begin(self) -> Work | None:
        if self.awaits_tls:
            return self._begin_tls()
        self.say(self.terms.banner)
        return None

    async def _begin_tls(self) -> None:
        await handshake(self)
        if self.secured:
            self.say(self.terms.banner)

    def ended(self) -> None:
        self.end_transaction()
        self.door.ended(self)

    def failed(self, error: BaseException) -> None:
        self.door.observer.trouble("an SMTP session failed", error, listener=self.door.name)

    def timed_out(self) -> None:
        if self.idle and self.helo and self.transaction is None and not self.in_a_line:
            return  # a connection kept for a next message that did not come: nothing was refused
        self.door.observer.refused(self.origin, TIMED_OUT, "timeout")

    def malformed(self, fault: Fault) -> None:
        self.refuse(BARE_LF if fault is Fault.BARE_LF else LINE_TOO_LONG, "syntax")

    def command(self, line: bytearray) -> Work | None:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self.refuse(BAD_OCTETS, "syntax")
            return None
        if not text.isprintable() and (text.isascii() or _CONTROL.search(text)):
            self.refuse(BAD_OCTETS, "syntax")
            return None
        name, _, argument = text.partition(" ")
        verb = VERBS.get(name) or VERBS.get(name.upper())
        if verb is not None:
            return verb(self, argument.strip(" "))
        if name.upper() in _HTTP or " HTTP/1." in text:
            self.refuse(NOT_HTTP, "client", FREE)
            self.closing = True
        elif _FIELD.match(text):  # content whose DATA was refused, from a client that did not wait: what it says is somebody else's
            self.refuse(NO_COMMAND, "client", FREE)
            self.closing = True
        else:
            self.refuse(UNKNOWN, "syntax")
        return None

    def after_command(self) -> None:
        if self._leaving and self.transaction is None and not self.closing:
            self.say(encode(LEAVING))
            self.closing = True

    def fault(self, error: BaseException) -> bytes:
        self.door.observer.trouble("an SMTP command failed", error, listener=self.door.name)
        self.door.observer.refused(self.origin, LOCAL_ERROR, "internal")
        if self.reading:
            self.closing = True  # what the client goes on to send is content, not commands
        return encode(LOCAL_ERROR)

    # --- what the verbs and the Door ask ---

    def introduce(self, helo: str) -> None:
        """Take note of who speaks, for the log and the Received line."""
        self.helo = helo
        self.origin = Origin(self.door.name, self.client, helo, self.user, self.tls, self.owner)

    def under_tls(self, tls: str) -> None:
        """Begin anew under TLS (RFC 3207 §4.2); `tls`: version and cipher."""
        self.end_transaction()
        self.tls, self.user, self.authenticated = tls, None, False
        self.introduce("")

    def logged_in(self, user: str | None) -> None:
        """Take note of a login; None: as nobody in particular."""
        self.user, self.authenticated = user, True
        self.introduce(self.helo)

    def end_transaction(self) -> None:
        """Forget the transaction, and give back what its content took of the memory."""
        if self.transaction is not None:
            if self.transaction.incoming is not None:
                self.transaction.incoming.discard()
            self.transaction = None

    def leave(self) -> None:
        """Close once the transaction under way, if any, has ended."""
        self._leaving = True
        if self.idle and self.transaction is None:
            self.cut(encode(LEAVING))

    def refuse(self, reply: Reply, reason: str, cost: int = ERROR) -> None:
        """Answer with a refusal; at the end of the client's budget, with the last one."""
        self.door.observer.refused(self.origin, reply, reason)
        self.spend(cost, reply)

    def spend(self, cost: int, reply: Reply | bytes) -> None:
        """Answer, and take the cost of the command from the client's budget."""
        self._junk -= cost
        if self._junk < 0:
            self.door.observer.refused(self.origin, JUNK, "limits")
            reply = JUNK
            self.closing = True
        self.say(encode(reply) if isinstance(reply, Reply) else reply)

    def forgive(self) -> None:
        """Fill up the client's budget: it has brought a message."""
        self._junk = self.options.junk
        self.forgive_slowness()
