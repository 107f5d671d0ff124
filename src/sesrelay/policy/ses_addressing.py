"""Addresses as SES takes them: ASCII local part, domain in A-labels, and a Source even for the null sender.

Source: Amazon SES API reference, SendRawEmail (Source must be 7-bit ASCII, domains in Punycode).
"""

from __future__ import annotations

import re

from sesrelay.mail.address import domain_of
from sesrelay.mail.ascii_fields import ascii_address
from sesrelay.mail.envelope import Message
from sesrelay.mail.outcome import Failed, Held, Scope
from sesrelay.mail.reply import Reply

QUEUE_ID_TAG = "sesrelay-id"
"""The message tag by which events of SES name the queue id; nobody else may set it."""

NOT_ASCII = Failed(
    Reply(554, "5.6.7", "SES does not support an address whose local part is not ASCII"),
    Scope.RECIPIENT,
    "Route mail for such addresses through a transport that supports SMTPUTF8.",
)
_SENDER_NOT_ASCII = Failed(
    Reply(554, "5.6.7", "SES does not support a sender whose local part is not ASCII"),
    Scope.MESSAGE,
    "Send from an ASCII address, or route this sender through a transport that supports SMTPUTF8.",
)
_NO_SENDER = Held(
    Reply(454, "4.1.8", "SES does not accept the null sender, and the header From has no address to use instead"),
    "no_sender",
    "SES requires a verified address as Source: have the application write a From, or set `null_sender_route` to another "
    "transport.",
)

_PLAIN = re.compile(
    r"(?=.{3,254}\Z)[A-Z0-9_+-]{1,64}(?:\.[A-Z0-9_+-]+)*"
    r"@((?:[A-Z0-9](?:[A-Z0-9-]{0,61}[A-Z0-9])?\.)+(?:[A-Z]{2,63}|XN--[A-Z0-9-]{1,58}[A-Z0-9]))\Z",
    re.I | re.A,
)
_LOCAL_MAX = 64  # octets, RFC 5321 §4.5.3.1.1


def plain_domain(address: str) -> str:
    """Return the domain, in lower case, of an address whose form nobody can refuse; empty where it is any other."""
    found = _PLAIN.match(address)
    return found[1].lower() if found and address.index("@") <= _LOCAL_MAX else ""


def source(message: Message, local_domains: frozenset[str] = frozenset()) -> str | Failed | Held:
    """Return the Source of a message: its envelope sender, or its first header From where that is null or local.

    No account can verify `www-data@` a machine's own name, which is what PHP's mail() puts into the envelope.
    """
    address = message.sender
    if message.header_from and (not address or domain_of(address) in local_domains):
        address = message.header_from[0]
    if not address:
        return _NO_SENDER
    return ascii_address(address) or _SENDER_NOT_ASCII
