"""The verbs around a transaction: EHLO, HELO, NOOP, VRFY, HELP, QUIT.

Source: RFC 5321 §4.1.1.1, §4.1.1.6–§4.1.1.10, §3.5.3 (252).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesrelay.listener.costs import IDLING
from sesrelay.listener.offers import commands
from sesrelay.listener.replies import BYE, CANNOT_VERIFY, NEED_ADDRESS, NEED_NAME, NO_ARGUMENT, NOT_OFFERED, OK

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession

HELO_MAX = 255  # octets, as of a domain (RFC 5321 §4.5.3.1.2)


def ehlo(session: SmtpSession, hostname: str) -> None:
    _greeted(session, hostname, extended=True)


def helo(session: SmtpSession, hostname: str) -> None:
    _greeted(session, hostname, extended=False)


def _greeted(session: SmtpSession, hostname: str, *, extended: bool) -> None:
    if not hostname or len(hostname.encode()) > HELO_MAX:
        session.refuse(NEED_NAME, "syntax")
        return
    session.end_transaction()
    session.introduce(hostname.split(maxsplit=1)[0])
    terms = session.terms
    reply = terms.ehlo(session.door_options, session.door.intake.now(), secured=session.secured) if extended else terms.helo
    session.spend(IDLING, reply)  # whoever greets again and again only idles


def noop(session: SmtpSession, argument: str) -> None:
    session.spend(IDLING, OK)


def quit_(session: SmtpSession, argument: str) -> None:
    if argument:
        session.refuse(NO_ARGUMENT, "syntax")
        return
    session.say(BYE)
    session.closing = True


def vrfy(session: SmtpSession, argument: str) -> None:
    if not argument:
        session.refuse(NEED_ADDRESS, "syntax")
        return
    session.spend(IDLING, CANNOT_VERIFY)


def help_(session: SmtpSession, argument: str) -> None:
    known = commands(session.door_options, secured=session.secured)
    session.spend(IDLING, b"214 2.0.0 " + " ".join(known).encode("ascii") + b"\r\n")


def not_offered(session: SmtpSession, argument: str) -> None:
    session.refuse(NOT_OFFERED, "syntax")
