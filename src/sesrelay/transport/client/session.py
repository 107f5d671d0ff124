"""One connection to an SMTP host: opened, secured, logged in, and then one transaction after the other.

`smtp` and `direct` share it; neither's policy is here. aiosmtplib opens the connection; from then on the line is ours
(`dialogue`), as the answer to a lost connection depends on the octet up to which we had come.

Invariant: every answer names its stage; from the moment the final dot, or a chunk's last octet, may leave it is Stage.DOT.
Invariant: no content leaves for a transaction without a recipient; where the host waits for one, the connection is cut.
Invariant: no address or content byte is rewritten by a library on its way out.

Source: RFC 5321 §3.3, §4.5.3.2 (timeouts), RFC 2920 (pipelining), RFC 3030 (BDAT).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence

from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.filed import Filed
from sesrelay.mail.outcome import Outcome, Trail
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Interrupted
from sesrelay.transport.client.answers import Answer, Stage
from sesrelay.transport.client.connect import Endpoint, Opened, open_connection
from sesrelay.transport.client.content import Payload, Stuffed
from sesrelay.transport.client.dialogue import CLOSED, Dialogue
from sesrelay.transport.client.offer import NoSmtp, Offer, reply_of

AT_ONCE = 64 * 1024  # octets that go out together with the final dot
PIECE = 256 * 1024  # octets handed to the socket at a time above that
NO_COMMAND = frozenset({500, 502})  # RFC 5321 §4.2.4: not recognised, not implemented


class _Lost(Exception):
    """The connection went away, timed out, or spoke something else than SMTP."""


@value(frozen=True, slots=True)
class Transaction:
    """What the host said for each delivery; `dsn`: it was also asked to report, and will.

    `fault`: of ours, or the end of the process, in the last of several transactions; those whom that one was for have no answer,
    nor have those who were not asked for before the end, `untried`.
    """

    answers: Mapping[DeliveryId, Answer]
    dsn: bool
    trail: Trail
    fault: BaseException | None = None
    untried: frozenset[DeliveryId] = frozenset()

    def certain(self, outcomes: Mapping[DeliveryId, Outcome]) -> Mapping[DeliveryId, Outcome]:
        """Return what was made of the answers. Raises: Interrupted, with them, where they are not all."""
        if self.fault is None:
            return outcomes
        raise Interrupted({**outcomes, **dict.fromkeys(self.untried, CUT)}) from self.fault

    @property
    def taken(self) -> bool:
        """The host took the message for somebody."""
        return any(answer.stage is Stage.DOT and answer.reply.positive and not answer.lost for answer in self.answers.values())

    @property
    def about_recipients(self) -> bool:
        """The host took it for nobody, for reasons of each recipient's own."""
        return all(answer.stage is Stage.RCPT and not answer.service_gone for answer in self.answers.values())

    @property
    def at_mail(self) -> Answer | None:
        """The answer, where the host accepted nothing of the transaction."""
        return next((answer for answer in self.answers.values() if answer.stage is Stage.MAIL and not answer.ours), None)

    @property
    def gone_at_mail(self) -> Answer | None:
        """The answer, where the host went away before it accepted anything of the transaction."""
        answer = self.at_mail
        return answer if answer is not None and answer.service_gone else None


class Session:
    """One open connection. Not for two tasks at once.

    The pool's: `born` on the clock, once it has served; `since`, when it began to wait, on the loop's.
    """

    def __init__(self, opened: Opened, endpoint: Endpoint) -> None:
        self._dialogue = Dialogue(opened.transport)
        self._extensions = opened.extensions
        self._clean = True
        limits = opened.extensions.get("limits", "")
        self.recipient_limit = _limit("RCPTMAX", limits)
        self.transaction_limit = _limit("MAILMAX", limits)
        self.endpoint = endpoint
        self.tls = opened.tls
        self.transactions = 0
        self.chunk_unknown = False  # the host did not know BDAT, and is in the middle of something
        self.born: float | None = None
        self.since = 0.0

    @classmethod
    async def open(cls, endpoint: Endpoint, sock: socket.socket | None = None) -> Session:
        """Connect, unless `sock` is connected already, say EHLO, secure and log in. Raises: Unreached."""
        return cls(await open_connection(endpoint, sock), endpoint)

    @property
    def usable(self) -> bool:
        """Open, and not in the middle of something."""
        return self._clean and self._dialogue.open

    @property
    def spent(self) -> bool:
        """The host wants no more transactions in this connection."""
        return self.transaction_limit is not None and self.transactions >= self.transaction_limit

    def forget_chunks(self) -> None:
        """Use no BDAT from here on."""
        self._extensions = {name: what for name, what in self._extensions.items() if name != "chunking"}

    def leave(self) -> None:
        """Say QUIT without waiting for the answer, and close (as Postfix does: smtp_skip_quit_response)."""
        if self._clean:
            self._dialogue.leave(b"QUIT\r\n")
        else:
            self._dialogue.abort()

    async def transact(self, batch: Batch, payload: Payload) -> Transaction:
        """Offer the message to the host for every delivery of the batch. Raises: SpoolError."""
        wire = await payload.load(seven_bit="8bitmime" not in self._extensions)
        offer = Offer(batch, wire, self.endpoint.name, self._extensions)
        if offer.commands:
            self._clean = False  # until the host is known to wait for the next MAIL
            self.transactions += 1
            if await self._agreed(offer):
                sent = self._chunk(payload, wire.data) if offer.chunking else self._content(payload, wire.stuffed, b".\r\n")
                offer.settle(await sent)
            if offer.mail_refused and self.transactions > 1:
                self.transaction_limit = 1  # perhaps that is what it meant: this connection is kept no longer
        trail = Trail(self.tls, wire.changes, self.endpoint.name)
        return Transaction(offer.answers, "dsn" in self._extensions, trail)

    async def _agreed(self, offer: Offer) -> bool:
        """Go as far as the reply to DATA; tell whether the content is to follow."""
        try:
            if "pipelining" in self._extensions:
                await self._ask(offer, offer.commands)
            else:
                for command in offer.commands:
                    if offer.hopeless:
                        break
                    await self._ask(offer, (command,))
        except (_Lost, NoSmtp) as error:
            offer.settle(self._lost(offer.stage, str(error)))
            return False
        if offer.go_on:
            return not offer.hopeless  # if it is, whatever we say now would be content: cut the line
        self._clean = not offer.begun or await self._reset()
        return False

    async def _ask(self, offer: Offer, commands: Sequence[bytes]) -> None:
        """Send commands in one write and have the offer read the replies. Raises: _Lost, NoSmtp."""
        for said in await self._dialogue.ask(b"".join(commands), len(commands), self.endpoint.timeouts.command):
            offer.take(said)
        if self._dialogue.lost is not None:
            raise _Lost(self._dialogue.lost)

    async def _reset(self) -> bool:
        """End a transaction that was not completed; tell whether the connection can serve again."""
        said = await self._dialogue.ask(b"RSET\r\n", 1, self.endpoint.timeouts.command)
        return bool(said) and said[0].code // 100 == 2

    async def _chunk(self, payload: Payload, data: bytes | Filed) -> Answer:
        """Send the content by BDAT, as one chunk; return the host's last word."""
        # What is in doubt begins with the last octet, as it does with the final dot.
        kept = 0 if len(data) <= AT_ONCE else len(data) - 1
        command = b"BDAT %d LAST\r\n" % len(data)
        first = data.without_last(len(data) - kept) if isinstance(data, Filed) else data[:kept]
        answer = await self._content(payload, first, data[kept:], command)
        if answer.reply.code in NO_COMMAND:  # whoever announced it: a filter in between, say, let that pass
            self.chunk_unknown = True
            self._clean = False  # what of the content it may have taken for commands nobody knows
        elif answer.stage is Stage.DOT and not answer.lost and not answer.reply.positive:
            self._clean = await self._reset()  # RFC 3030 §2: what state a refused chunk leaves is not certain
        return answer

    async def _content(self, payload: Payload, content: bytes | Filed | Stuffed, end: bytes, command: bytes = b"") -> Answer:
        """Send content and what ends it; return the host's last word."""
        dialogue = self._dialogue
        if not dialogue.expect(1):
            return self._lost(Stage.CONTENT)
        if not isinstance(content, bytes) or len(content) > AT_ONCE:
            dialogue.send(command)
            early = await self._pieces(content)
            if early is not None:
                return early
            command = content = b""
            if dialogue.lost is not None:
                return self._lost(Stage.CONTENT)
        payload.left = True
        dialogue.send(b"".join((command, content, end)))
        said = await dialogue.replies(self.endpoint.timeouts.final)
        if not said:
            return self._lost(Stage.DOT)
        if said[0].code // 100 not in (2, 4, 5):
            return self._lost(Stage.DOT, f"it answered with {said[0].code}")
        payload.left = False
        self._clean = True
        return Answer(Stage.DOT, reply_of(said[0]))

    async def _pieces(self, content: bytes | Filed | Stuffed) -> Answer | None:
        """Send a large content with a bounded buffer; return an answer only where the host ended it before that."""
        dialogue = self._dialogue
        for start in range(0, len(content), PIECE):
            piece = slice(start, start + PIECE)
            dialogue.send(content[piece] if isinstance(content, bytes) else await asyncio.to_thread(content.__getitem__, piece))
            await dialogue.drain(self.endpoint.timeouts.block)
            said = dialogue.early
            if said is not None and said.code // 100 in (4, 5):
                return Answer(Stage.CONTENT, reply_of(said))
            if said is not None:
                return self._lost(Stage.CONTENT, f"it answered {said.code} in the middle of the content")
            if dialogue.lost is not None:
                return self._lost(Stage.CONTENT)
        return None

    def _lost(self, stage: Stage, why: str = "") -> Answer:
        text = f"lost the connection to {self.endpoint.name}: {why or self._dialogue.lost or CLOSED}"
        return Answer(stage, Reply.parse(451, f"4.4.2 {text}"), lost=True)


def _limit(name: str, limits: str) -> int | None:
    """Return a limit that the host has announced (RFC 9422 §3), where it has."""
    found = re.search(rf"\b{name}=([1-9]\d{{0,5}})\b", limits, re.I)
    return int(found[1]) if found else None
