"""SES's SMTP endpoint before the account of the stand-in: STARTTLS first, SMTP passwords, and refusals in SES's own words.

Invariant: what the API would refuse is refused here, and both spend one rate and one quota.

Source: Amazon SES developer guide, "Using the Amazon SES SMTP interface", "SMTP response codes returned by Amazon SES".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sesrelay.testing.ses_faults import Fault, reset_stream
from sesrelay.testing.ses_journal import Taken
from sesrelay.testing.ses_rules import Account, Refusal, value

SIZE_MAX = 41_943_040  # octets of one message
LINE_MAX = 64 * 1024 * 1024  # octets: lines of the content are judged with the message
_PATH = re.compile(r"(?:FROM|TO):\s*<([^>]*)>", re.I)
_TAG = re.compile(r"\s*([A-Za-z0-9_.@-]+)\s*=\s*([A-Za-z0-9_.@-]+)\s*\Z")
_SPOKEN = {
    "throttle": "454 Throttling failure: Maximum sending rate exceeded.",
    "quota": "454 Throttling failure: Daily message quota exceeded.",
    "500": "454 Temporary service failure",
    "503": "454 Temporary service failure",
    "garbage": "\0\x7f<<<",
    "portal": "HTTP/1.1 511 Network Authentication Required",
}

Take = Callable[[str, tuple[str, ...], bytes, Mapping[str, str], str | None, Fault, str, Mapping[str, str]], Taken]


def password_of(secret_access_key: str, region: str) -> str:
    """Return the SMTP password of a secret access key in one region."""
    key = f"AWS4{secret_access_key}".encode()
    for part in ("11111111", region, "ses", "aws4_request", "SendRawEmail"):
        key = hmac.digest(key, part.encode(), "sha256")
    return base64.b64encode(b"\x04" + key).decode("ascii")


@dataclass
class SmtpDoor:
    """Listens from `start` to `stop`. `keys` and `next_fault` are asked for at each use; `take` puts into the journal.

    `implicit`: TLS from the start, as on port 465.
    """

    account: Account
    keys: Callable[[], Mapping[str, str] | None]
    next_fault: Callable[[], Fault]
    take: Take
    refused: Callable[[str], None]
    tls: ssl.SSLContext
    host: str = "127.0.0.1"
    port: int = 0
    implicit: bool = False
    logins: list[tuple[str, bool]] = field(default_factory=list)
    """Each AUTH: the user name, and whether it was taken."""

    async def start(self) -> None:
        self._sessions: set[asyncio.Task[None]] = set()
        under = self.tls if self.implicit else None
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=LINE_MAX, ssl=under)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for session in list(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
                await _Session(self, reader, writer).talk()
        finally:
            self._sessions.discard(task)
            writer.close()

    def knows(self, user: str, password: str) -> bool:
        keys = self.keys()
        good = keys is None or (
            user in keys and hmac.compare_digest(password_of(keys[user], self.account.region).encode(), password.encode())
        )
        self.logins.append((user, good))
        return good


class _Session:
    """One connection. `_mail` None: no transaction is under way."""

    def __init__(self, door: SmtpDoor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._door, self._reader, self._writer = door, reader, writer
        self._secure, self._user = door.implicit, ""
        self._mail: str | None = None
        self._rcpt: list[str] = []

    async def talk(self) -> None:
        await self._say("220 email-smtp.amazonaws.com ESMTP SimpleEmailService-stand-in")
        while line := await self._reader.readline():
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    starttls = [] if self._secure else ["STARTTLS"]
                    words = ["email-smtp.amazonaws.com", "8BITMIME", *starttls, "AUTH PLAIN LOGIN"]
                    await self._say("\r\n".join([*(f"250-{word}" for word in words), "250 Ok"]))
                case "STARTTLS" if not self._secure:
                    await self._say("220 Ready to start TLS")
                    await self._writer.start_tls(self._door.tls)
                    self._secure = True
                case "AUTH":
                    await self._say(await self._auth(rest))
                case "MAIL" | "RCPT" | "DATA" if not self._user:
                    await self._say("530 Authentication required" if self._secure else "530 Must issue a STARTTLS command first")
                case "DATA":
                    await self._data()
                case "QUIT":
                    return await self._say("221 Bye")
                case _:
                    await self._say(self._simple(verb.upper(), rest))
        return None

    def _simple(self, verb: str, rest: str) -> str:
        found = _PATH.match(rest)
        if verb == "MAIL":
            if found is None or not found[1]:
                return "501 Invalid MAIL FROM address provided"
            self._mail, self._rcpt = found[1], []
        elif verb == "RCPT":
            if found is None or not found[1]:
                return "501 Invalid RCPT TO address provided"
            if self._mail is None:
                return "503 Error: need MAIL command"
            self._rcpt.append(found[1])
        elif verb == "RSET":
            self._mail = None
        elif verb != "NOOP":
            return "500 Error: command not implemented"
        return "250 Ok"

    async def _auth(self, rest: str) -> str:
        if not self._secure:
            return "530 Must issue a STARTTLS command first"
        how, _, first = rest.partition(" ")
        try:
            if how.upper() == "PLAIN":
                _, user, password = (await self._told(first, "")).split("\0")
            elif how.upper() == "LOGIN":
                user = await self._told(first, "VXNlcm5hbWU6")
                password = await self._told("", "UGFzc3dvcmQ6")
            else:
                return "504 Unrecognized authentication type"
        except (ValueError, binascii.Error):
            return "501 Invalid authentication string"
        if not self._door.knows(user, password):
            return "535 Authentication Credentials Invalid"
        self._user = user
        return "235 Authentication successful."

    async def _told(self, given: str, prompt: str) -> str:
        if not given:
            await self._say(f"334 {prompt}")
            given = (await self._reader.readline()).decode("ascii").strip()
        return base64.b64decode(given, validate=True).decode()

    async def _data(self) -> None:
        if self._mail is None or not self._rcpt:
            return await self._say("503 Error: need RCPT command")
        await self._say("354 End data with <CR><LF>.<CR><LF>")
        lines = []
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionResetError
            lines.append(line.removeprefix(b"."))
        source, self._mail = self._mail, None
        return await self._end(source, tuple(self._rcpt), b"".join(lines))

    async def _end(self, source: str, destinations: tuple[str, ...], raw: bytes) -> None:
        door, fault = self._door, self._door.next_fault()
        if fault.name in ("slow", "hang"):
            await asyncio.sleep(fault.seconds if fault.name == "slow" else 86_400)
        elif fault.name == "error":
            return await self._say(f"{fault.status} {fault.text}")
        elif fault.name == "reset_before":
            return reset_stream(self._writer)
        elif fault.name in _SPOKEN:
            return await self._say(_SPOKEN[fault.name])
        head = raw[: raw.find(b"\r\n\r\n") + 2]
        pairs = (_TAG.match(pair) for pair in (value(head, b"x-ses-message-tags") or "").split(","))
        try:
            door.account.admit(source, destinations, raw, None, SIZE_MAX)
        except Refusal as refusal:
            door.refused(refusal.code)
            return await self._say(_worded(refusal))
        tags = {pair[1]: pair[2] for pair in pairs if pair}
        taken = door.take(source, destinations, raw, tags, value(head, b"x-ses-configuration-set"), fault, "smtp", {})
        return reset_stream(self._writer) if fault.takes else await self._say(f"250 Ok {taken.message_id}")

    async def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()


def _worded(refusal: Refusal) -> str:
    if refusal.code == "Throttling":
        return f"454 Throttling failure: {refusal.text}"
    if refusal.code == "MessageRejected":
        return f"554 Message rejected: {refusal.text}"
    if refusal.text.startswith("Message length"):
        return "552 Message is too long."
    return f"554 Transaction failed: {refusal.text}"
