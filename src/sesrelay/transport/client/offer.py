"""One message offered to one SMTP host, as far as its content: the commands, and what each reply means for whom.

Values only: `session` sends the commands, one by one or all at once, and hands the replies in, in their order.

Invariant: each reply belongs to the command of its place; what a host says after it refused MAIL changes nothing.
Invariant: content is wanted only where the host accepted MAIL, a recipient and DATA, or takes it by BDAT.

Source: RFC 5321 §3.3, RFC 1870, RFC 2920 §3.1, RFC 3030, RFC 3461, RFC 6152, RFC 6531.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sesrelay.mail import orcpt
from sesrelay.mail.ascii_fields import ascii_address
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId
from sesrelay.mail.envelope import Envelope
from sesrelay.mail.reply import Reply
from sesrelay.transport.client.answers import Answer, Stage
from sesrelay.transport.client.connect import parse_reply
from sesrelay.transport.client.content import Wire
from sesrelay.transport.client.replies import Said

NOTIFY_ORDER = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
ENVID_MAX = 100  # octets (RFC 3461 §4.4): of more, which some programs say to us, a host may refuse the mail
TOO_BIG, NEEDS_UTF8 = "5.3.4", "5.6.7"
DATA = b"DATA\r\n"
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class NoSmtp(Exception):
    """The host said something that is no answer to what it was asked."""


class Offer:
    """Made for one host's `extensions`. `answers`: what is settled, by delivery; `commands`: what to send before the content;
    the last is DATA, unless `chunking`: then the content brings its own command. `mail_refused`: by the host.
    """

    def __init__(self, batch: Batch, wire: Wire, host: str, extensions: Mapping[str, str]) -> None:
        self._batch = batch
        self._host = host
        self._extensions = extensions
        self._utf8 = "smtputf8" in extensions
        self.chunking = "chunking" in extensions
        self.answers: dict[DeliveryId, Answer] = {}
        addresses = self._addresses(wire)
        self._asked = [delivery for delivery in batch.deliveries if delivery.id in addresses]
        self._replies = 0
        self._accepted = 0
        self.mail_refused = False
        self._data_accepted = False
        self.commands: tuple[bytes, ...] = ()
        if self._asked:
            mail = self._mail(wire, addresses)
            as_is = self._says_utf8(batch.message.sender, addresses)
            self.commands = (mail, *(self._rcpt(one, addresses[one.id], as_is=as_is) for one in self._asked))
            if not self.chunking:
                self.commands += (DATA,)

    @property
    def stage(self) -> Stage:
        """Where the first command is that has no reply."""
        if self._replies == 0:
            return Stage.MAIL
        if self._replies <= len(self._asked):
            return Stage.RCPT
        return Stage.DATA if self._replies < len(self.commands) else Stage.CONTENT

    @property
    def go_on(self) -> bool:
        """The host waits for the content."""
        return self._data_accepted or (self.chunking and self._replies == len(self.commands) and not self.hopeless)

    @property
    def hopeless(self) -> bool:
        """The host has refused MAIL, or every recipient."""
        return self.mail_refused or (self._replies > len(self._asked) and not self._accepted)

    @property
    def begun(self) -> bool:
        """The host is in a transaction, which RSET ends."""
        return self._replies > 0 and not self.mail_refused

    def take(self, said: Said) -> None:
        """Read the reply to the next command. Raises: NoSmtp."""
        stage = self.stage
        digit = said.code // 100
        if digit not in ((3, 4, 5) if stage is Stage.DATA else (2, 4, 5)):
            raise NoSmtp(f"it answered with {said.code}")
        place = self._replies
        self._replies += 1
        if stage is Stage.DATA:
            self._data_accepted = digit == 3
        if self.mail_refused:
            return
        if stage is Stage.RCPT and digit == 2:
            self._accepted += 1
        elif digit > 3:
            answer = Answer(stage, self._too_many(reply_of(said)) if stage is Stage.RCPT else reply_of(said))
            if stage is Stage.RCPT and said.code != 421:  # which closes: nobody is accepted any more
                self.answers[self._asked[place - 1].id] = answer
            else:
                self.mail_refused = stage is Stage.MAIL
                self.settle(answer)

    def _too_many(self, reply: Reply) -> Reply:
        """Return the reply to RCPT, with a 552 that means too many recipients as the 452 that it is (RFC 5321 §4.5.3.1.10)."""
        if reply.code == 552 and self._accepted and reply.enhanced in ("", "5.5.3"):
            return Reply(452, "4.5.3", reply.text)
        return reply

    def settle(self, answer: Answer) -> None:
        """Answer for every delivery that has none."""
        for delivery in self._batch.deliveries:
            self.answers.setdefault(delivery.id, answer)

    def _addresses(self, wire: Wire) -> dict[DeliveryId, str]:
        """Return the recipients as this host reads them; answer for what it says it cannot take."""
        refusal = self._cannot_take(self._batch.message.envelope, wire)
        if refusal is not None:
            self.settle(refusal)
            return {}
        found: dict[DeliveryId, str] = {}
        for delivery in self._batch.deliveries:
            address = delivery.recipient.address if self._utf8 else ascii_address(delivery.recipient.address)
            if address is None:
                self.answers[delivery.id] = self._needs_utf8(Stage.RCPT)
            else:
                found[delivery.id] = address
        return found

    def _cannot_take(self, envelope: Envelope, wire: Wire) -> Answer | None:
        """Return our refusal of a message that the host would not take for anyone."""
        limit = self._extensions.get("size", "")
        if limit.isdigit() and 0 < int(limit) < wire.size:
            text = f"{self._host} accepts messages up to {limit} octets; this one has {wire.size}"
            return Answer(Stage.MAIL, Reply(552, TOO_BIG, text), ours=True)
        if self._utf8:
            return None
        if (envelope.smtputf8 and wire.utf8_header) or ascii_address(envelope.sender) is None:
            return self._needs_utf8(Stage.MAIL)
        return None

    def _needs_utf8(self, stage: Stage) -> Answer:
        text = f"{self._host} does not support internationalised mail (SMTPUTF8), which this message needs"
        return Answer(stage, Reply(550, NEEDS_UTF8, text), ours=True)

    def _mail(self, wire: Wire, addresses: Mapping[DeliveryId, str]) -> bytes:
        envelope = self._batch.message.envelope
        sender = envelope.sender if self._utf8 else ascii_address(envelope.sender) or ""
        words = [f"MAIL FROM:<{sender}>"]
        if "size" in self._extensions:
            words.append(f"SIZE={wire.size}")
        if "8bitmime" in self._extensions and (wire.eight_bit or envelope.body == "8BITMIME"):
            words.append("BODY=8BITMIME")
        if self._says_utf8(sender, addresses):
            words.append("SMTPUTF8")
        if "dsn" in self._extensions:
            if envelope.ret:
                words.append(f"RET={envelope.ret}")
            if envelope.envid and len(envelope.envid) <= ENVID_MAX:
                words.append(f"ENVID={envelope.envid}")
        return _line(words)

    def _says_utf8(self, sender: str, addresses: Mapping[DeliveryId, str]) -> bool:
        smtputf8 = self._batch.message.envelope.smtputf8
        return self._utf8 and (smtputf8 or not "".join((sender, *addresses.values())).isascii())

    def _rcpt(self, delivery: Delivery, address: str, *, as_is: bool) -> bytes:
        """Return RCPT. `as_is`: the transaction says SMTPUTF8, without which ORCPT has 7 bits (RFC 6533 §3)."""
        words = [f"RCPT TO:<{address}>"]
        if "dsn" in self._extensions:
            notify, original = delivery.recipient.notify, delivery.recipient.orcpt
            if notify:
                words.append(f"NOTIFY={','.join(word for word in NOTIFY_ORDER if word in notify)}")
            if original:
                words.append(f"ORCPT={original if as_is else orcpt.as_ascii(original)}")
        return _line(words)


def reply_of(said: Said) -> Reply:
    """Return what was said as people and policy read it."""
    return parse_reply(said.code, said.text.decode("utf-8", "replace"))


def _line(words: list[str]) -> bytes:
    """Return a command. Raises: ValueError where a word would make two of it."""
    command = " ".join(words).encode()
    if _CONTROL.search(command):
        raise ValueError("a control character in a command")
    return command + b"\r\n"
