"""One SMTP session: the verbs, the transaction, and what each refusal costs the client.

Invariant: a session keeps the options it began with.
Invariant: only the intake's own reply says that a message is ours; a client that drops does not undo its commit.
Invariant: every reply but those to HELO, EHLO, DATA (354) and the banner has an enhanced status code.

Source: RFC 5321 §4.1, §4.3.2; RFC 2034; RFC 2920; RFC 1870; RFC 6152; RFC 6531; RFC 3461.
"""

# The names of the verbs are aiosmtpd's.
# ruff: noqa: N802

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from sesrelay.listener.commands import MailCommand, RcptCommand, parse_mail, parse_rcpt
from sesrelay.listener.wire import TIMED_OUT, Deadlines, Fault, Wire, encode
from sesrelay.mail.address import AddressError, check_local_part, domain_of
from sesrelay.mail.envelope import Envelope, Origin, Recipient
from sesrelay.mail.lineends import canonical
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import check_mailbox, complete_recipient, complete_sender

if TYPE_CHECKING:
    from sesrelay.listener.listening import Door

# What is taken from ListenerOptions.junk, which each accepted message fills up again: a client that only errs is cut
# after 20 refusals, one that only idles or tries recipients after 100.
ERROR_COST = 5
IDLING_COST = 1
FREE = 0

HELO_MAX = 255
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"})

_RESET = b"250 2.0.0 Ok\r\n"
_SENDER = b"250 2.1.0 Ok\r\n"
_RECIPIENT = b"250 2.1.5 Ok\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_BYE = b"221 2.0.0 Bye\r\n"
_CANNOT_VERIFY = b"252 2.0.0 Cannot verify, but will take mail and try\r\n"

LOCAL_ERROR = Reply(451, "4.3.0", "Local error, try again later")
TOO_LARGE = Reply(552, "5.3.4", "The message is larger than this relay takes")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction")
JUNK = Reply(421, "4.7.0", "Too many errors or idle commands: the connection is closed")
NOT_HTTP = Reply(421, "4.7.0", "This is SMTP, not HTTP: the connection is closed")
LEAVING = Reply(421, "4.3.2", "The relay is going down: try again later")
BAD_OCTETS = Reply(501, "5.5.2", "Control characters or octets that are no UTF-8 in a command")
LINE_TOO_LONG = Reply(500, "5.5.2", "Command line too long")
BARE_LF = Reply(500, "5.5.2", "A command line ends with CR LF")
UNKNOWN = Reply(500, "5.5.1", "Command not recognised")
NOT_OFFERED = Reply(502, "5.5.1", "Command not offered")
NO_ARGUMENT = Reply(501, "5.5.4", "The command takes no argument")
NEED_NAME = Reply(501, "5.5.4", "Syntax: EHLO hostname")
NEED_HELO = Reply(503, "5.5.1", "Send EHLO first")
NEED_MAIL = Reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "A transaction is under way")
NEED_RCPT = Reply(554, "5.5.1", "No valid recipients")


class Transaction:
    """What MAIL and RCPT have said so far."""

    __slots__ = ("mail", "recipients", "sender")

    def __init__(self, sender: str, mail: MailCommand) -> None:
        self.sender = sender
        self.mail = mail
        self.recipients: dict[str, Recipient] = {}

    def envelope(self) -> Envelope:
        mail = self.mail
        return Envelope(self.sender, tuple(self.recipients.values()), mail.body, mail.smtputf8, mail.ret, mail.envid)


class SmtpSession(Wire):
    """One client, from the banner to the end of the connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door) -> None:
        self._door = door
        self._terms = door.terms()
        self._options = options = self._terms.options
        super().__init__(
            loop,
            options.hostname,
            Deadlines(options.command_timeout, options.line_timeout, options.min_rate, options.content_time),
        )
        self.client = ""
        self._helo = ""
        self._origin = Origin(door.name)
        self._transaction: Transaction | None = None
        self._junk = options.junk
        self._leaving = False
        self._reading = False

    # --- what Wire asks ---

    def admit(self, transport: asyncio.BaseTransport) -> Reply | None:
        return self._door.admit(self, transport)

    def admitted(self, client: str) -> None:
        self.client = client
        self._origin = Origin(self._door.name, client)

    def banner(self) -> bytes:
        return self._terms.banner

    def ended(self) -> None:
        self._door.ended(self)

    def failed(self, error: BaseException) -> None:
        self._door.observer.trouble("an SMTP session failed", error, listener=self._door.name)

    def timed_out(self) -> None:
        if self.idle and self._helo and self._transaction is None:
            return  # a connection kept for a next message that did not come: nothing was refused
        self._door.observer.refused(self._origin, TIMED_OUT, "timeout")

    def malformed(self, fault: Fault) -> None:
        self.refuse(LINE_TOO_LONG if fault is Fault.TOO_LONG else BARE_LF, "syntax")

    async def command(self, line: bytearray) -> None:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self.refuse(BAD_OCTETS, "syntax")
            return
        if not text.isprintable() and (text.isascii() or _CONTROL.search(text)):
            self.refuse(BAD_OCTETS, "syntax")
            return
        verb, _, argument = text.partition(" ")
        method = self.verbs.get(verb) or self.verbs.get(verb.upper())
        if method is not None:
            await method(self, argument.strip(" "))
        elif verb.upper() in _HTTP or " HTTP/1." in text:
            self.refuse(NOT_HTTP, "client", FREE)
            self.closing = True
        else:
            self.refuse(UNKNOWN, "syntax")

    def after_command(self) -> None:
        if self._leaving and self._transaction is None and not self.closing:
            self.say(encode(LEAVING))
            self.closing = True

    async def handle_exception(self, error: Exception) -> str:
        self._door.observer.trouble("an SMTP command failed", error, listener=self._door.name)
        self._door.observer.refused(self._origin, LOCAL_ERROR, "internal")
        if self._reading:
            self.closing = True  # what the client goes on to send is content, not commands
        return str(LOCAL_ERROR)

    def leave(self) -> None:
        """Close once the transaction under way, if any, has ended."""
        self._leaving = True
        if self.idle and self._transaction is None:
            self.cut(encode(LEAVING))

    def refuse(self, reply: Reply, reason: str, cost: int = ERROR_COST) -> None:
        """Answer with a refusal; at the end of the client's budget, with the last one."""
        self._door.observer.refused(self._origin, reply, reason)
        self._spend(cost, reply)

    def _spend(self, cost: int, reply: Reply | bytes) -> None:
        self._junk -= cost
        if self._junk < 0:
            self._door.observer.refused(self._origin, JUNK, "limits")
            reply = JUNK
            self.closing = True
        self.say(encode(reply) if isinstance(reply, Reply) else reply)

    # --- verbs ---

    async def smtp_EHLO(self, hostname: str) -> None:
        self._greeted(hostname, extended=True)

    async def smtp_HELO(self, hostname: str) -> None:
        self._greeted(hostname, extended=False)

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        if not hostname or len(hostname.encode()) > HELO_MAX:
            self.refuse(NEED_NAME, "syntax")
            return
        self._transaction = None
        self._helo = hostname.split(maxsplit=1)[0]
        self._origin = Origin(self._door.name, self.client, self._helo)
        assert self.session is not None
        self.session.host_name, self.session.extended_smtp = self._helo, extended
        # Each greeting but the first idles.
        self._spend(IDLING_COST, self._terms.ehlo if extended else self._terms.helo)

    async def smtp_MAIL(self, argument: str) -> None:
        if not self._helo:
            self.refuse(NEED_HELO, "sequence")
            return
        if self._transaction is not None:
            self.refuse(NESTED_MAIL, "sequence")
            return
        mail = parse_mail(argument)
        if isinstance(mail, Reply):
            self.refuse(mail, "syntax")
            return
        if mail.size > self._options.message_size:
            self.refuse(TOO_LARGE, "size", IDLING_COST)
            return
        sender = mail.address if mail.plain else self._sender(mail)
        if isinstance(sender, Reply):
            self.refuse(sender, "address", IDLING_COST)
            return
        refusal = self._door.intake.check_sender(sender, self._origin)
        if refusal is not None:
            self.refuse(refusal, "policy", IDLING_COST)
            return
        self._transaction = Transaction(sender, mail)
        self.say(_SENDER)

    def _sender(self, mail: MailCommand) -> str | Reply:
        address, local = mail.address, self._options.local
        if address and self._is_local(address):
            return _check_name(address, mail.smtputf8, "5.1.7") or complete_sender(address, local)
        return check_mailbox(address, smtputf8=mail.smtputf8, sender=True) or address

    async def smtp_RCPT(self, argument: str) -> None:
        transaction = self._transaction
        if transaction is None:
            self.refuse(NEED_MAIL if self._helo else NEED_HELO, "sequence")
            return
        command = parse_rcpt(argument)
        if isinstance(command, Reply):
            self.refuse(command, "syntax")
            return
        if command.domain and command.domain not in self._terms.local_domains:
            recipient: Recipient | Reply = Recipient(command.address)
        else:
            recipient = self._recipient(command, smtputf8=transaction.mail.smtputf8)
        if isinstance(recipient, Reply):
            self.refuse(recipient, "local" if recipient.enhanced == "5.1.1" else "address", IDLING_COST)
            return
        name, _, domain = recipient.address.rpartition("@")
        key = f"{name}@{domain.lower()}"
        if key not in transaction.recipients:
            if len(transaction.recipients) >= self._options.recipients:
                self.refuse(TOO_MANY_RECIPIENTS, "recipients", FREE)
                return
            transaction.recipients[key] = recipient
        self.say(_RECIPIENT)

    def _recipient(self, command: RcptCommand, *, smtputf8: bool) -> Recipient | Reply:
        address = command.address
        if self._is_local(address):
            refusal = _check_name(address, smtputf8, "5.1.3")
        else:
            refusal = check_mailbox(address, smtputf8=smtputf8, sender=False)
        return refusal or complete_recipient(Recipient(address, command.notify, command.orcpt), self._options.local)

    def _is_local(self, address: str) -> bool:
        return "@" not in address or domain_of(address) in self._terms.local_domains

    async def smtp_DATA(self, argument: str) -> None:
        transaction = self._transaction
        if argument:
            self.refuse(NO_ARGUMENT, "syntax")
            return
        if transaction is None:
            self.refuse(NEED_MAIL if self._helo else NEED_HELO, "sequence")
            return
        if not transaction.recipients:
            self.refuse(NEED_RCPT, "sequence", IDLING_COST)
            return
        self.say(_GO_AHEAD)
        try:
            self._reading = True
            received = await self.read_content(self._options.message_size)
            self._reading = False
            if received.too_large:
                self.refuse(TOO_LARGE, "size", IDLING_COST)
                return
            content = received.content()
            del received
            await self._submit(transaction.envelope(), content)
        finally:
            self._transaction = None

    async def _submit(self, envelope: Envelope, content: bytes) -> None:
        # Nothing cancels the handler from here to the reply; the Door holds the session, and so the task, meanwhile.
        self.uninterrupted = True
        try:
            content, changes = canonical(content)
            reply = await self._door.intake.submit(envelope, content, self._origin, changes)
        finally:
            self.uninterrupted = False
        if reply.positive:
            self._junk = self._options.junk
            self.say(encode(reply))
        else:
            self.refuse(reply, "intake", IDLING_COST)
        if self.transport is None:
            self.closing = True  # the client has gone: what it sent behind the message is not for us

    async def smtp_RSET(self, argument: str) -> None:
        if argument:
            self.refuse(NO_ARGUMENT, "syntax")
            return
        self._transaction = None
        self._spend(IDLING_COST, _RESET)

    async def smtp_NOOP(self, argument: str) -> None:
        self._spend(IDLING_COST, _RESET)

    async def smtp_QUIT(self, argument: str) -> None:
        if argument:
            self.refuse(NO_ARGUMENT, "syntax")
            return
        self.say(_BYE)
        self.closing = True

    async def smtp_VRFY(self, argument: str) -> None:
        if not argument:
            self.refuse(Reply(501, "5.5.4", "Syntax: VRFY address"), "syntax")
            return
        self._spend(IDLING_COST, _CANNOT_VERIFY)

    async def smtp_HELP(self, argument: str) -> None:
        self._spend(IDLING_COST, b"214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY QUIT\r\n")

    async def not_offered(self, argument: str) -> None:
        self.refuse(NOT_OFFERED, "syntax")

    verbs: ClassVar[dict[str, Callable[[SmtpSession, str], Awaitable[None]]]] = {
        "EHLO": smtp_EHLO,
        "HELO": smtp_HELO,
        "MAIL": smtp_MAIL,
        "RCPT": smtp_RCPT,
        "DATA": smtp_DATA,
        "RSET": smtp_RSET,
        "NOOP": smtp_NOOP,
        "QUIT": smtp_QUIT,
        "VRFY": smtp_VRFY,
        "HELP": smtp_HELP,
        "EXPN": not_offered,
        "AUTH": not_offered,
        "STARTTLS": not_offered,
        "BDAT": not_offered,
    }


def _check_name(address: str, smtputf8: bool, status: str) -> Reply | None:
    """Check the local part of an address that is this machine's own or has no domain."""
    name, at, _ = address.rpartition("@")
    if not smtputf8 and not address.isascii():
        return Reply(553, "5.6.7", "a non-ASCII address wants the SMTPUTF8 parameter at MAIL")
    try:
        check_local_part(name if at else address)
    except AddressError as error:
        return Reply(553, status, f"Malformed address: {error}")
    return None
