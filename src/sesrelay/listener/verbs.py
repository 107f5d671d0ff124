"""Which function answers which verb.

A verb is `async def verb(session, argument)`; it answers by `session.say`, `session.spend` or `session.refuse`, once.

Source: RFC 5321 §4.1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from sesrelay.listener import data, greeting, login, starttls, transaction

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession

VERBS: Mapping[str, Callable[[SmtpSession, str], Awaitable[None]]] = {
    "MAIL": transaction.mail,
    "RCPT": transaction.rcpt,
    "DATA": data.data,
    "BDAT": data.bdat,
    "RSET": transaction.rset,
    "EHLO": greeting.ehlo,
    "HELO": greeting.helo,
    "NOOP": greeting.noop,
    "QUIT": greeting.quit_,
    "VRFY": greeting.vrfy,
    "EXPN": greeting.not_offered,
    "HELP": greeting.help_,
    "AUTH": login.auth,
    "STARTTLS": starttls.starttls,
}
