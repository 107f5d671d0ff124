"""The content of a mail transaction: DATA and BDAT.

Invariant: exactly the octets that a BDAT names are taken off the wire, whatever becomes of them.

Source: RFC 5321 §3.3, §4.1.1.4; RFC 3030 §2; RFC 1870 §6.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sesrelay.listener.answers import Work
from sesrelay.listener.content import ChunkFeed, DataFeed, Incoming
from sesrelay.listener.costs import FREE, IDLING
from sesrelay.listener.replies import (
    BDAT_SYNTAX,
    DATA_AFTER_BDAT,
    DISCARDED,
    GO_AHEAD,
    NEED_HELO,
    NEED_MAIL,
    NEED_RCPT,
    NO_ARGUMENT,
    TIMED_OUT,
    encode,
)
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import TOO_LARGE
from sesrelay.seams import SpoolError

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession
    from sesrelay.listener.transaction import Transaction

_CHUNK = re.compile(r"([0-9]{1,20})(?: +(LAST))?\Z", re.ASCII | re.IGNORECASE)


def data(session: SmtpSession, argument: str) -> Work | None:
    transaction = session.transaction
    if argument:
        session.refuse(NO_ARGUMENT, "syntax")
    elif transaction is None:
        session.refuse(NEED_MAIL if session.helo else NEED_HELO, "sequence")
    elif transaction.incoming is not None:
        session.refuse(DATA_AFTER_BDAT, "sequence")
    elif not transaction.recipients:
        session.refuse(NEED_RCPT, "sequence", IDLING)
    else:
        return _message(session, transaction)
    return None


async def _message(session: SmtpSession, transaction: Transaction) -> None:
    try:
        incoming = transaction.receive(session)
        if incoming.refusal is not None:  # it can be said before the client sends it all
            _refuse(session, incoming.refusal)
            return
        session.say(GO_AHEAD)
        session.reading = True
        await session.read_content(DataFeed(incoming), transaction.ends)
        session.reading = False
        await _finish(session, transaction, incoming)
    finally:
        session.end_transaction()


async def bdat(session: SmtpSession, argument: str) -> None:
    found = _CHUNK.match(argument)
    if found is None:
        session.refuse(BDAT_SYNTAX, "syntax")
        session.closing = True
        return
    octets, last, transaction = int(found[1]), found[2] is not None, session.transaction
    if transaction is None or not transaction.recipients:
        await _swallow(session, octets, session.content_ends())
        if transaction is None:
            session.refuse(NEED_MAIL if session.helo else NEED_HELO, "sequence", IDLING)
        else:
            session.refuse(NEED_RCPT, "sequence", IDLING)
            if last:
                session.end_transaction()
        return
    try:
        await _chunk(session, transaction, octets, last=last)
    finally:
        if last:
            session.end_transaction()


async def _chunk(session: SmtpSession, transaction: Transaction, octets: int, *, last: bool) -> None:
    incoming = transaction.incoming
    if session.loop.time() >= transaction.ends:  # each chunk may be in time, and the message have no end
        session.timed_out()
        session.say(encode(TIMED_OUT))
        session.closing = True
        return
    if incoming is None:
        incoming = transaction.receive(session)
    elif incoming.refusal is not None:
        await _swallow(session, octets, transaction.ends)
        # Some clients go by the last reply, and what is temporary must stay so.
        session.say(encode(DISCARDED if incoming.refusal.code >= 500 else incoming.refusal))
        return
    if incoming.size + octets > incoming.limit:
        incoming.refuse(TOO_LARGE)
    await _swallow(session, octets, transaction.ends, incoming)
    if incoming.heavy:
        await incoming.lighten()
    if last:
        await _finish(session, transaction, incoming)
    elif incoming.refusal is not None:
        _refuse(session, incoming.refusal, incoming.trouble)
    else:
        session.say(b"250 2.0.0 %d octets received\r\n" % octets)


async def _swallow(session: SmtpSession, octets: int, ends: float, incoming: Incoming | None = None) -> None:
    """Take the octets of a chunk off the wire."""
    if octets:
        session.reading = True
        await session.read_content(ChunkFeed(octets, incoming), ends)
        session.reading = False


def _refuse(session: SmtpSession, refusal: Reply, trouble: SpoolError | None = None) -> None:
    if trouble is not None:
        session.door.observer.trouble("a large message cannot be written to disk; its client was told to try again later", trouble)
    if refusal is TOO_LARGE:
        session.refuse(refusal, "size", IDLING)
    else:
        session.refuse(refusal, "memory" if trouble is None else "disk", FREE)


async def _finish(session: SmtpSession, transaction: Transaction, incoming: Incoming) -> None:
    """Answer for a message that has all come: by its refusal, or by what the intake says to it."""
    changes = incoming.end()
    if incoming.in_file:
        await incoming.lighten()
    if incoming.refusal is not None:  # asked after `end`, whose last octet may be the one that does not fit
        _refuse(session, incoming.refusal, incoming.trouble)
        return
    # Nothing cancels this from here to the reply; the Door holds the session, and so what it does, meanwhile.
    session.uninterrupted = True
    try:
        # No name for the content here: the intake is to be the only one that holds it.
        reply = await session.door.intake.submit(
            transaction.envelope(), incoming.content(), session.origin, changes, session.options.rules
        )
    finally:
        session.uninterrupted = False
    if reply.positive:
        session.forgive()
        session.say(encode(reply))
    else:
        session.refuse(reply, "intake", IDLING)
    if session.transport is None:
        session.closing = True  # the client has gone: what it sent behind the message is not for us
