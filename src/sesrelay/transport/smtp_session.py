"""One connection to an SMTP host: opened, secured, logged in, and then one transaction after the other.

`smtp` and `direct` share it; neither's policy is here. aiosmtplib carries the commands; replies are read here by their
first digit, and the sending of content is done here because `SMTP.data` does not tell a connection lost before the final
dot from one lost after it.

Invariant: every answer names its stage; from the moment the final dot may leave it is Stage.DOT.
Invariant: no address or content byte is rewritten by a library on its way out.

Source: RFC 5321 §3.3, §4.5.3.2 (timeouts), RFC 1870, RFC 6152, RFC 6531, RFC 3461.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import aiosmtplib
from aiosmtplib import SMTPException, SMTPResponse
from aiosmtplib.protocol import SMTPProtocol

from sesrelay.mail.address import AddressError, domain_key, split
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.envelope import Envelope
from sesrelay.mail.outcome import Trail
from sesrelay.mail.reply import Reply
from sesrelay.transport.smtp_answers import Answer, Stage
from sesrelay.transport.smtp_connect import Endpoint, open_client, parse_reply, plainly, tls_of
from sesrelay.transport.smtp_content import Payload, Wire

AT_ONCE = 64 * 1024  # octets that go out together with the final dot
PIECE = 256 * 1024  # octets handed to the socket at a time above that
NOTIFY_ORDER = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
TOO_BIG, NEEDS_UTF8 = "5.3.4", "5.6.7"


class _Lost(Exception):
    """The connection went away, timed out, or spoke something else than SMTP."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the host said for each delivery; `dsn`: it was also asked to report, and will."""

    answers: Mapping[DeliveryId, Answer]
    dsn: bool
    trail: Trail

    @property
    def gone_at_mail(self) -> Answer | None:
        """The answer, where the host went away before it accepted anything of the transaction."""
        at_mail = (answer for answer in self.answers.values() if answer.stage is Stage.MAIL and answer.service_gone)
        return next(at_mail, None)


class Session:
    """One open connection. Not for two tasks at once."""

    def __init__(self, client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
        self._client = client
        self._extensions = dict(client.esmtp_extensions)  # the client forgets them when it closes
        self._clean = True
        self._stage = Stage.MAIL
        self.endpoint = endpoint
        self.tls = tls_of(client)
        self.transactions = 0

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Session:
        """Connect, say EHLO, secure and log in. Raises: Unreached."""
        return cls(await open_client(endpoint), endpoint)

    @property
    def usable(self) -> bool:
        """Open, and not in the middle of something."""
        return self._clean and self._client.is_connected

    def leave(self) -> None:
        """Say QUIT without waiting for the answer, and close (as Postfix does: smtp_skip_quit_response)."""
        protocol = self._client.protocol
        if self._clean and protocol is not None and protocol.is_connected:
            protocol.write(b"QUIT\r\n")
            self._client.close()
        else:
            self._abort()

    async def transact(self, batch: Batch, payload: Payload) -> Transaction:
        """Offer the message to the host for every delivery of the batch. Raises: SpoolError."""
        wire = await payload.load()
        answers: dict[DeliveryId, Answer] = {}
        addresses = self._addresses(batch, wire, answers)
        if addresses:
            self._clean = False
            self._stage = Stage.MAIL
            self.transactions += 1
            try:
                await self._transact(batch, wire, addresses, answers)
            except _Lost as error:
                text = f"lost the connection to {self.endpoint.name}: {error}"
                _answer_rest(batch, answers, Answer(self._stage, Reply(451, "4.4.2", text), lost=True))
                self._abort()
        return Transaction(answers, "dsn" in self._extensions, Trail(self.tls, wire.changes))

    async def _transact(
        self, batch: Batch, wire: Wire, addresses: Mapping[DeliveryId, str], answers: dict[DeliveryId, Answer]
    ) -> None:
        """Go from MAIL to the answer to the final dot, or to where the host ends it. Raises: _Lost."""
        reply = await self._command(b"MAIL", *self._mail_parameters(batch, wire, addresses))
        if not reply.positive:
            _answer_rest(batch, answers, Answer(Stage.MAIL, reply))
            self._clean = True  # nothing was begun
            return
        self._stage = Stage.RCPT
        if not await self._recipients(batch, addresses, answers):
            await self._reset()
            return
        self._stage = Stage.DATA
        reply = await self._command(b"DATA")
        if not reply.positive:
            _answer_rest(batch, answers, Answer(Stage.DATA, reply))
            await self._reset()
            return
        self._stage = Stage.CONTENT
        answer = await self._send(wire.stuffed)
        _answer_rest(batch, answers, answer)
        if answer.stage is Stage.DOT:
            self._clean = True
        else:
            self._abort()  # it refused in the middle of the content: no later command could be told from that

    def _addresses(self, batch: Batch, wire: Wire, answers: dict[DeliveryId, Answer]) -> dict[DeliveryId, str]:
        """Return the recipients as this host reads them; answer for what it says it cannot take."""
        refusal = self._cannot_take(batch.message.envelope, wire)
        if refusal is not None:
            _answer_rest(batch, answers, refusal)
            return {}
        utf8 = "smtputf8" in self._extensions
        found: dict[DeliveryId, str] = {}
        for delivery in batch.deliveries:
            address = delivery.recipient.address if utf8 else _as_ascii(delivery.recipient.address)
            if address is None:
                answers[delivery.id] = self._needs_utf8(Stage.RCPT)
            else:
                found[delivery.id] = address
        return found

    def _cannot_take(self, envelope: Envelope, wire: Wire) -> Answer | None:
        """Return our refusal of a message that the host would not take for anyone."""
        limit = self._extensions.get("size", "")
        if limit.isdigit() and 0 < int(limit) < wire.size:
            text = f"{self.endpoint.name} takes messages up to {limit} octets; this one has {wire.size}"
            return Answer(Stage.MAIL, Reply(552, TOO_BIG, text), ours=True)
        if "smtputf8" in self._extensions:
            return None
        if (envelope.smtputf8 and wire.utf8_header) or _as_ascii(envelope.sender) is None:
            return self._needs_utf8(Stage.MAIL)
        return None

    def _needs_utf8(self, stage: Stage) -> Answer:
        text = f"{self.endpoint.name} does not take internationalised mail (SMTPUTF8), which this message needs"
        return Answer(stage, Reply(550, NEEDS_UTF8, text), ours=True)

    def _mail_parameters(self, batch: Batch, wire: Wire, addresses: Mapping[DeliveryId, str]) -> list[bytes]:
        envelope = batch.message.envelope
        utf8 = "smtputf8" in self._extensions
        sender = envelope.sender if utf8 else _as_ascii(envelope.sender) or ""
        parameters = [f"FROM:<{sender}>"]
        if "size" in self._extensions:
            parameters.append(f"SIZE={wire.size}")
        if "8bitmime" in self._extensions and (wire.eight_bit or envelope.body == "8BITMIME"):
            parameters.append("BODY=8BITMIME")
        if utf8 and (envelope.smtputf8 or not "".join((sender, *addresses.values())).isascii()):
            parameters.append("SMTPUTF8")
        if "dsn" in self._extensions:
            if envelope.ret:
                parameters.append(f"RET={envelope.ret}")
            if envelope.envid:
                parameters.append(f"ENVID={envelope.envid}")
        return [parameter.encode() for parameter in parameters]

    async def _recipients(self, batch: Batch, addresses: Mapping[DeliveryId, str], answers: dict[DeliveryId, Answer]) -> bool:
        """Send RCPT for each; keep what is refused in `answers`; tell whether any was accepted."""
        accepted = False
        for delivery in batch.deliveries:
            if delivery.id not in addresses:
                continue
            parameters = [f"TO:<{addresses[delivery.id]}>".encode()]
            if "dsn" in self._extensions:
                notify, orcpt = delivery.recipient.notify, delivery.recipient.orcpt
                if notify:
                    parameters.append(f"NOTIFY={','.join(word for word in NOTIFY_ORDER if word in notify)}".encode())
                if orcpt:
                    parameters.append(f"ORCPT={orcpt}".encode())
            reply = await self._command(b"RCPT", *parameters)
            if reply.positive:
                accepted = True
                continue
            answers[delivery.id] = Answer(Stage.RCPT, reply)
            if reply.code == 421:  # it closes: nobody is accepted any more
                _answer_rest(batch, answers, answers[delivery.id])
                return False
        return accepted

    async def _send(self, stuffed: bytes) -> Answer:
        """Send content and final dot; return the host's last word. Raises: _Lost."""
        protocol = self._client.protocol
        if protocol is None:
            raise _Lost("it closed the connection")
        with _losses():
            if len(stuffed) > AT_ONCE:
                return await self._send_in_pieces(protocol, stuffed)
            protocol.write(stuffed + b".\r\n")
            self._stage = Stage.DOT
            code, text = await protocol.read_response(timeout=self.endpoint.timeouts.final)
            return Answer(Stage.DOT, _checked(code, text))

    async def _send_in_pieces(self, protocol: SMTPProtocol, stuffed: bytes) -> Answer:
        """Send a large content with a bounded buffer; the final dot only when all before it has left."""
        reading = asyncio.ensure_future(protocol.read_response(timeout=None))
        try:
            await asyncio.sleep(0)  # the reader must be waiting before the host can have anything to say
            for start in range(0, len(stuffed), PIECE):
                protocol.write(stuffed[start : start + PIECE])
                await _drained(protocol, reading, self.endpoint.timeouts.block)
                if reading.done():
                    reply = _checked(*reading.result())
                    if reply.positive:
                        raise _Lost(f"it answered {reply.code} in the middle of the content")
                    return Answer(Stage.CONTENT, reply)
            protocol.write(b".\r\n")
            self._stage = Stage.DOT
            return Answer(Stage.DOT, _checked(*await asyncio.wait_for(reading, self.endpoint.timeouts.final)))
        finally:
            reading.cancel()

    def _abort(self) -> None:
        """Close at once: what is still to be written would wait for a host that no longer reads."""
        transport = cast("asyncio.WriteTransport | None", self._client.transport)
        self._client.close()
        if transport is not None:
            transport.abort()

    async def _reset(self) -> None:
        """End a transaction that was not completed, so that the connection can serve again."""
        if not self._client.is_connected:
            return
        try:
            reply = await self._command(b"RSET")
        except _Lost:
            self._abort()
            return
        self._clean = reply.positive and self._client.is_connected

    async def _command(self, *words: bytes) -> Reply:
        """Send one command and return its reply. Raises: _Lost."""
        with _losses():
            code, text = await self._client.execute_command(*words, timeout=self.endpoint.timeouts.command)
        return _checked(code, text, go_on=words[0] == b"DATA")


def _answer_rest(batch: Batch, answers: dict[DeliveryId, Answer], answer: Answer) -> None:
    for delivery in batch.deliveries:
        answers.setdefault(delivery.id, answer)


async def _drained(protocol: SMTPProtocol, reading: asyncio.Future[SMTPResponse], limit: float) -> None:
    """Wait until what was written has left, or the host has answered early. Raises: _Lost."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    pause = 0.001
    while not reading.done():
        transport = cast("asyncio.WriteTransport | None", protocol.transport)
        if transport is None:
            raise _Lost("it closed the connection")
        if transport.get_write_buffer_size() == 0:
            return
        if loop.time() > until:
            raise _Lost("it stopped reading")
        await asyncio.wait((reading,), timeout=pause)
        pause = min(pause * 2, 0.02)


class _losses:  # noqa: N801  (reads as a word in `with`)
    """Turn every way in which a connection fails into _Lost."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, SMTPException | OSError):  # TimeoutError is one
            raise _Lost(plainly(error)) from error


def _checked(code: int, text: str, *, go_on: bool = False) -> Reply:
    """Return the reply if its first digit can be one: 3 only, and instead of 2, where it tells to go on. Raises: _Lost."""
    if code // 100 not in ((3, 4, 5) if go_on else (2, 4, 5)):
        raise _Lost(f"it answered with {code}")
    return parse_reply(code, text)


def _as_ascii(address: str) -> str | None:
    """Return `address` for a host without SMTPUTF8: as it is, or with its domain in A-labels; None where neither does."""
    if address.isascii():
        return address
    local, domain = split(address)
    try:
        return f"{local}@{domain_key(domain)}" if local.isascii() else None
    except AddressError:
        return None
