"""The envelope of a mail transaction: MAIL, RCPT, RSET.

Source: RFC 5321 §3.3, §4.1.1.2–§4.1.1.5; RFC 1870; RFC 6152; RFC 6531; RFC 3461.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sesrelay.listener.commands import MailCommand, RcptCommand, parse_mail, parse_rcpt
from sesrelay.listener.content import LARGE, NO_MEMORY, Incoming, held_of
from sesrelay.listener.costs import FREE, IDLING
from sesrelay.listener.login import demanded
from sesrelay.listener.replies import (
    NEED_HELO,
    NEED_MAIL,
    NESTED_MAIL,
    NO_ARGUMENT,
    OK,
    ORCPT_WANTS_UTF8,
    RCPT_AFTER_BDAT,
    RECIPIENT_OK,
    SENDER_OK,
    TOO_MANY_RECIPIENTS,
)
from sesrelay.mail.address import AddressError, check_local_part, domain_of
from sesrelay.mail.envelope import Envelope, Recipient
from sesrelay.mail.reply import Reply
from sesrelay.policy import scheduling
from sesrelay.policy.admission import TOO_LARGE, check_mailbox, complete_recipient, complete_sender

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession


class Transaction:
    """What MAIL and RCPT have said so far, and, where chunks have come, the content so far.

    `ends`: when it is all to have come, on the loop's clock, once the content has begun.
    """

    __slots__ = ("ends", "incoming", "mail", "recipients", "release", "sender")

    def __init__(self, sender: str, mail: MailCommand, release: float | None) -> None:
        self.sender = sender
        self.release = release
        self.mail = mail
        self.recipients: dict[str, Recipient] = {}
        self.incoming: Incoming | None = None
        self.ends = math.inf

    def receive(self, session: SmtpSession) -> Incoming:
        """Begin with the content."""
        self.incoming = Incoming(session.options.message_size, session.door.memory, self.mail.size, session.door.scratch)
        self.ends = session.content_ends()
        return self.incoming

    def envelope(self) -> Envelope:
        mail = self.mail
        recipients = tuple(self.recipients.values())
        return Envelope(self.sender, recipients, mail.body, mail.smtputf8, mail.ret, mail.envid, self.release)


def mail(session: SmtpSession, argument: str) -> None:
    if not session.helo:
        session.refuse(NEED_HELO, "sequence")
        return
    if session.transaction is not None:
        session.refuse(NESTED_MAIL, "sequence")
        return
    refusal = demanded(session)
    if refusal is not None:
        session.refuse(refusal, "auth")
        return
    command = parse_mail(argument)
    if isinstance(command, Reply):
        session.refuse(command, "syntax")
        return
    if command.size > session.options.message_size:
        session.refuse(TOO_LARGE, "size", IDLING)
        return
    if command.size >= LARGE and not session.door.memory.fits(held_of(command.size, session.door.scratch)):
        session.refuse(NO_MEMORY, "memory", FREE)
        return
    sender = command.address if command.plain else _sender(session, command)
    if isinstance(sender, Reply):
        session.refuse(sender, "address", IDLING)
        return
    refusal = session.door.intake.check_sender(sender, session.origin, session.options.rules)
    if refusal is not None:
        session.refuse(refusal, "policy", IDLING)
        return
    release = _release(session, command)
    if isinstance(release, Reply):
        session.refuse(release, "syntax")
        return
    session.transaction = Transaction(sender, command, release)
    session.say(SENDER_OK)


def _release(session: SmtpSession, command: MailCommand) -> float | Reply | None:
    if command.hold_for is None and command.hold_until is None:
        return None
    return scheduling.release(command.hold_for, command.hold_until, session.door.intake.now())


def _sender(session: SmtpSession, command: MailCommand) -> str | Reply:
    address, local = _undotted(command.address), session.options.local
    if address and _is_local(session, address):
        return _check_name(address, command.smtputf8, "5.1.7") or complete_sender(address, local)
    return check_mailbox(address, smtputf8=command.smtputf8, sender=True) or address


def rcpt(session: SmtpSession, argument: str) -> None:
    transaction = session.transaction
    if transaction is None:
        session.refuse(NEED_MAIL if session.helo else NEED_HELO, "sequence")
        return
    if transaction.incoming is not None:
        session.refuse(RCPT_AFTER_BDAT, "sequence")
        return
    command = parse_rcpt(argument)
    if isinstance(command, Reply):
        session.refuse(command, "syntax")
        return
    if command.domain and command.domain not in session.terms.local_domains:
        recipient: Recipient | Reply = Recipient(command.address)
    else:
        recipient = _recipient(session, command, smtputf8=transaction.mail.smtputf8)
    if isinstance(recipient, Reply):
        session.refuse(recipient, "local" if recipient.enhanced == "5.1.1" else "address", IDLING)
        return
    name, _, domain = recipient.address.rpartition("@")
    key = f"{name}@{domain.lower()}"
    if key not in transaction.recipients:
        if len(transaction.recipients) >= session.options.recipients:
            session.refuse(TOO_MANY_RECIPIENTS, "recipients", FREE)
            return
        transaction.recipients[key] = recipient
    session.say(RECIPIENT_OK)


def _recipient(session: SmtpSession, command: RcptCommand, *, smtputf8: bool) -> Recipient | Reply:
    address = _undotted(command.address)
    if command.orcpt and not (smtputf8 or command.orcpt.isascii()):
        return ORCPT_WANTS_UTF8
    if _is_local(session, address):
        refusal = _check_name(address, smtputf8, "5.1.3")
    else:
        refusal = check_mailbox(address, smtputf8=smtputf8, sender=False)
    return refusal or complete_recipient(Recipient(address, command.notify, command.orcpt), session.options.local)


def _undotted(address: str) -> str:
    """Return `address` without a final dot of its domain: no host has to take it, and some do not (RFC 5321 §2.3.5)."""
    return address[:-1] if "@" in address and address.endswith(".") and address[-2] not in "@." else address


def _is_local(session: SmtpSession, address: str) -> bool:
    return "@" not in address or domain_of(address) in session.terms.local_domains


def _check_name(address: str, smtputf8: bool, status: str) -> Reply | None:
    """Check the local part of an address that is this machine's own or has no domain."""
    name, at, _ = address.rpartition("@")
    if not smtputf8 and not address.isascii():
        return Reply(553, "5.6.7", "a non-ASCII address requires the SMTPUTF8 parameter of MAIL")
    try:
        check_local_part(name if at else address)
    except AddressError as error:
        return Reply(553, status, f"Malformed address: {error}")
    return None


def rset(session: SmtpSession, argument: str) -> None:
    if argument:
        session.refuse(NO_ARGUMENT, "syntax")
        return
    session.end_transaction()
    session.spend(IDLING, OK)
