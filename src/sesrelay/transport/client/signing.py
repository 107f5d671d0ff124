"""Signing what leaves: whose key, off the loop, and what becomes of mail that cannot be signed.

Invariant: mail of a domain that has keys leaves signed by every one of them, or waits; it never fails for that.

Source: RFC 6376 §6.1 (who signs), RFC 7489 §3.1.1 (DMARC asks for the header From's domain).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sesrelay.mail import headers
from sesrelay.mail.address import domain_of
from sesrelay.mail.dkim import DkimKey, signatures
from sesrelay.mail.envelope import Message
from sesrelay.mail.filed import Filed
from sesrelay.mail.outcome import Deferred, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.seams import Clock, SpoolError
from sesrelay.transport.net.plainly import plainly

KeysByDomain = Mapping[str, Sequence[DkimKey]]


class Unsigned(Exception):
    """It could not be signed; `outcome` is what that means."""

    def __init__(self, domain: str, why: str) -> None:
        super().__init__(why)
        reply = Reply(451, "4.7.5", f"cannot sign mail of {domain}: {why}")
        remedy = f"correct the DKIM keys of {domain} (transports.*.dkim), then reload"
        self.outcome = Deferred(reply, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, remedy)


class Signer:
    """Signs one message, with the keys of its sender's domain."""

    def __init__(self, domain: str, keys: Sequence[DkimKey], clock: Clock) -> None:
        self._domain = domain
        self._keys = keys
        self._clock = clock

    async def signed(self, content: bytes | Filed, changes: tuple[str, ...]) -> tuple[bytes | Filed, tuple[str, ...]]:
        """Return `content`, the octets as they leave, with its signatures in front, and the receipts.

        Raises: Unsigned, SpoolError.
        """
        try:
            # A thread: a signature by RSA takes the time of ten small messages, and a large body that of hashing it.
            made = await asyncio.to_thread(_on_top, content, self._keys, int(self._clock.wall()))
        except SpoolError:
            raise  # that it cannot be read says nothing of the keys
        except Exception as error:
            raise Unsigned(self._domain, plainly(error)) from error
        return made, (*changes, *(f"added DKIM-Signature {key}" for key in self._keys))


def _on_top(content: bytes | Filed, keys: Sequence[DkimKey], now: int) -> bytes | Filed:
    if isinstance(content, Filed):
        return content.with_head(signatures(content, keys, now) + content.head)
    end = headers.head_length(content)
    if not content.startswith(b"\r\n", end):  # no empty line behind the header: receivers would differ on where the body begins
        content = headers.join(content[:end], content[end:])
    return signatures(content, keys, now) + content


def signer(keys: KeysByDomain, message: Message, clock: Clock) -> Signer | None:
    """Return what signs a message: the keys of its header From's domain, else of its envelope's; None where neither has any."""
    if not keys:
        return None
    for address in (*message.header_from[:1], message.sender):
        domain = domain_of(address)
        if domain in keys:
            return Signer(domain, keys[domain], clock)
    return None
