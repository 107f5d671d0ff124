"""From and Sender that the account has not verified, written anew where the route says so.

Source: SES developer guide, "Verified identities": From, Sender and Source must each be one; a domain covers what is below,
an address what has a label behind it (`post+label@`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formataddr

from sesrelay.mail import headers
from sesrelay.mail.address import comparable, domain_of
from sesrelay.mail.headers import Field
from sesrelay.mail.mailboxes import mailboxes

_SPECIALS = frozenset('()<>[]:;@\\,"')  # RFC 5322 §3.2.3
Verified = Callable[[str], bool | None]
"""Tells of an address whether the account may send from it; None: nobody knows."""


def nobody_knows(address: str) -> bool | None:
    return None


def without(known: Verified, refused: frozenset[str]) -> Verified:
    """Return `known` with what SES has just refused, in normal form."""
    return lambda address: False if comparable(address) in refused else known(address)


def covered(address: str, identities: frozenset[str]) -> bool:
    """Tell whether one of `identities`, addresses and domains in normal form, is that of `address`, or above its domain.

    What stands behind the first + of a local part is a label, and is verified with the address without it.
    """
    key = comparable(address)
    local, _, domain = key.rpartition("@")
    labels = domain_of(address).split(".")
    names = {key, f"{local.partition('+')[0]}@{domain}"} | {".".join(labels[n:]) for n in range(len(labels))}
    return not names.isdisjoint(identities)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`receipts`: the key of the field that changed, and what was done."""

    fields: list[Field]
    source: str
    receipts: tuple[tuple[str, str], ...]


def rewritten(fields: list[Field], source: str, address: str, verified: Verified) -> Rewritten:
    """Return From, Sender and the envelope's `source` with `address` in place of what is certainly not verified.

    Reply-To keeps the old From where the application named nobody; X-Original-From and X-Original-Sender keep the rest.
    """
    receipts: list[tuple[str, str]] = []
    made: list[Field] = []
    blank = [field for field in fields if field.key == "reply-to" and not field.value]
    has_reply_to = any(field.key == "reply-to" and field.value for field in fields)
    for field in fields:
        if field.key not in ("from", "sender"):
            made.append(field)
            continue
        old = headers.addresses([field.value])
        if not _unverified(old, address, verified):
            made.append(field)
            continue
        made.append(_field(field.name, _with_name(field, address)))
        receipts.append((field.key, f"{field.name} {', '.join(old)} became {address}: it is not a verified identity"))
        kept = f"X-Original-{field.name}"
        if not any(each.key == kept.lower() for each in fields):
            made.append(Field(kept, kept.encode() + b":" + field.raw.partition(b":")[2]))
            receipts.append((kept.lower(), f"added {kept}"))
        if field.key == "from" and not has_reply_to:
            made.append(Field("Reply-To", b"Reply-To:" + field.raw.partition(b":")[2]))
            receipts.append(("reply-to", "filled the empty Reply-To with the old From" if blank else "added Reply-To"))
            has_reply_to = True
    if blank and has_reply_to:  # SES takes one only
        made = [each for each in made if each not in blank]
    if _unverified((source,), address, verified):
        receipts.append(("", f"the envelope sender {source} became {address}: it is not a verified identity"))
        source = address
    return Rewritten(made, source, tuple(receipts))


def _unverified(addresses: Iterable[str], instead: str, verified: Verified) -> bool:
    return any(verified(each) is False and each.lower() != instead.lower() for each in addresses)


def _with_name(field: Field, address: str) -> str:
    named = [name for name, old in mailboxes([field.value]) if "@" in old]
    name = named[0] if len(named) == 1 else ""
    if "=?" in name and _SPECIALS.isdisjoint(name):  # encoded words lose their meaning in quotes
        return f"{name} <{address}>"
    return formataddr((name, address)) if name else address


def _field(name: str, value: str) -> Field:
    return Field(name, f"{name}: {value}\r\n".encode())
