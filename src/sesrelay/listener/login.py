"""AUTH: the mechanisms PLAIN and LOGIN, who may use them when, and the verb.

Invariant: a password is asked for under TLS only, but where every password is taken.
Invariant: what a client cannot say in AUTH cannot be told from a wrong password: unknown users, other identities.

Source: RFC 4954; RFC 4616 (PLAIN); draft-murchison-sasl-login-00 (LOGIN).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from argon2.exceptions import Argon2Error

from sesrelay.listener import replies
from sesrelay.listener.passwords import PATIENCE, Credentials, TooMany
from sesrelay.mail.reply import Reply

if TYPE_CHECKING:
    from sesrelay.listener.session import SmtpSession

FAILURES_MAX = 5  # wrong passwords in a session

WELCOME = b"235 2.7.0 Authentication successful\r\n"
NO_PLAIN_TEXT = Reply(538, "5.7.11", "Encryption required: issue STARTTLS first")
ALREADY = Reply(503, "5.5.1", "Already authenticated")
IN_TRANSACTION = Reply(503, "5.5.1", "AUTH is not permitted during a transaction")
UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Unknown mechanism: use PLAIN or LOGIN")
SYNTAX = Reply(501, "5.5.4", "Syntax: AUTH PLAIN|LOGIN [initial response]")
NOT_DECODED = Reply(501, "5.5.2", "The response cannot be decoded")
CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
WRONG = Reply(535, "5.7.8", "Authentication credentials invalid")
TOO_MANY_FAILED = Reply(421, "4.7.0", "Too many failed logins: the connection is closed")
COME_BACK = Reply(454, "4.7.0", "Too many failed logins from this client or for this user: try again later")
OUT_OF_ORDER = Reply(454, "4.7.0", "Temporary authentication failure")
MUST_STARTTLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
MUST_AUTH = Reply(530, "5.7.0", "Authentication required")

Exchange = Generator[bytes, bytes, Credentials]
"""One mechanism at work: yields challenges, is sent responses, returns what the client gives. Raises: Malformed"""


class Malformed(ValueError):
    """A response that means nothing."""


def plain(initial: bytes | None) -> Exchange:
    """PLAIN: one message, `authzid NUL authcid NUL password`."""
    message = (yield b"") if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise Malformed
    on_behalf_of, user, password = map(_text, parts)
    return Credentials(user, password, on_behalf_of)


def login(initial: bytes | None) -> Exchange:
    """LOGIN: user name, then password."""
    user = (yield b"Username:") if initial is None else initial
    password = yield b"Password:"
    return Credentials(_text(user), _text(password))


MECHANISMS: dict[str, Callable[[bytes | None], Exchange]] = {"PLAIN": plain, "LOGIN": login}


def decoded(response: str | bytes | bytearray) -> bytes:
    """Return what a line of base64 means. Raises: Malformed"""
    try:
        return base64.b64decode(response, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed from None


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Malformed from None


def demanded(session: SmtpSession) -> Reply | None:
    """Return the refusal of a transaction because nobody has logged in, or None."""
    if session.door_options.auth != "required" or session.authenticated:
        return None
    return MUST_AUTH if session.secured else MUST_STARTTLS


async def auth(session: SmtpSession, argument: str) -> None:
    """Answer AUTH."""
    refusal = _untimely(session)
    name, _, initial = argument.partition(" ")
    mechanism = MECHANISMS.get(name.upper())
    if refusal is None and mechanism is None:
        refusal = UNKNOWN_MECHANISM if name else SYNTAX
    if refusal is not None or mechanism is None:
        session.refuse(refusal or SYNTAX, "auth")
        return
    given = await _converse(session, mechanism, initial.strip(" "))
    if given is None:
        return
    if session.door_options.auth == "any":
        session.logged_in(None)  # whatever was given proves nothing
        session.say(WELCOME)
        return
    await _judge(session, given)


def _untimely(session: SmtpSession) -> Reply | None:
    door = session.door_options
    if door.auth == "none":
        return replies.NOT_OFFERED
    if not door.offers_login(secured=session.secured):
        return NO_PLAIN_TEXT
    if not session.helo:
        return replies.NEED_HELO
    if session.authenticated:
        return ALREADY
    return IN_TRANSACTION if session.transaction is not None else None


async def _converse(session: SmtpSession, mechanism: Callable[[bytes | None], Exchange], initial: str) -> Credentials | None:
    """Go through a mechanism's exchange; None: it came to nothing, and the client has been told."""
    try:
        exchange = mechanism((b"" if initial == "=" else decoded(initial)) if initial else None)
        challenge = next(exchange)
        while True:
            session.say(b"334 " + base64.b64encode(challenge) + b"\r\n")
            response = await session.read_line()
            if response is None:
                return None
            if response == b"*":
                session.refuse(CANCELLED, "auth")
                return None
            challenge = exchange.send(decoded(response))
    except StopIteration as end:
        credentials: Credentials = end.value
        return credentials
    except Malformed:
        session.refuse(NOT_DECODED, "auth")
        return None


async def _judge(session: SmtpSession, given: Credentials) -> None:
    session.flush()  # what was asked for before need not wait for this
    session.grant(PATIENCE)
    try:
        fits = await session.door.verifier.fits(given, session.client, session.options.users)
    except TooMany:
        session.refuse(COME_BACK, "auth")
        return
    except Argon2Error as error:
        session.door.observer.trouble("a password could not be verified", error, listener=session.door.name)
        session.refuse(OUT_OF_ORDER, "auth")
        return
    if fits:
        session.logged_in(given.user)
        session.say(WELCOME)
        return
    session.refuse(WRONG, "auth")
    session.failed_logins += 1
    if session.failed_logins >= FAILURES_MAX and not session.closing:
        session.refuse(TOO_MANY_FAILED, "auth")
        session.closing = True
