"""STARTTLS, and the handshake that begins TLS here or from the first octet.

Invariant: what was said in clear text is forgotten: greeting, login, transaction, and octets behind the command.

Source: RFC 3207; RFC 8314 §3 (implicit TLS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sesrelay.listener.answers import Work
from sesrelay.listener.replies import NO_ARGUMENT, NOT_OFFERED
from sesrelay.listener.tls import described, reason
from sesrelay.mail.reply import Reply

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession

READY = b"220 2.0.0 Ready to start TLS\r\n"
UNDER_TLS = Reply(503, "5.5.1", "TLS is already active")


def starttls(session: SmtpSession, argument: str) -> Work | None:
    """Answer STARTTLS."""
    if session.secured:
        session.refuse(UNDER_TLS, "tls")
    elif session.door_options.tls != "starttls":
        session.refuse(NOT_OFFERED, "tls")
    elif argument:
        session.refuse(NO_ARGUMENT, "syntax")
    else:
        session.say(READY)
        return handshake(session)
    return None


async def handshake(session: SmtpSession) -> None:
    """Begin TLS; where it fails, that has been told, and the session is over."""
    context = session.door_options.context
    assert context is not None
    try:
        connection = await session.secure(context)
    except OSError as error:
        session.door.observer.refused(session.origin, Reply(421, "4.7.0", f"TLS handshake failed: {reason(error)}"), "tls")
        session.closing = True
    else:
        session.under_tls(described(connection))
