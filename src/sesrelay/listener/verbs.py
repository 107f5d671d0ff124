"""Which function answers which verb.

A verb answers by `session.say`, `session.spend` or `session.refuse`, once; what it cannot do at once it returns, as a coroutine.

Source: RFC 5321 §4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sesrelay.listener import data, greeting, login, starttls, transaction

if TYPE_CHECKING:
    from sesrelay.listener.answers import Work
    from sesrelay.listener.session import SmtpSession

VERBS: Mapping[str, Callable[[SmtpSession, str], Work | None]] = {
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
