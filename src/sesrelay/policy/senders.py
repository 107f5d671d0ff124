"""Who may send as whom: sender patterns that are named for users or local users are theirs, and they keep to them.

A pattern may be used only by those named for it; whoever is named anywhere may use only what is named for him; everyone
else may use whatever is named for nobody. The most specific pattern counts, as in routes.

Invariant: what cannot be compared (a malformed From) is nobody's, and refused where there are rules at all.

Source: docs/decisions/0013.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sesrelay.mail.address import AddressError, domain_key, normalise, split
from sesrelay.mail.envelope import Origin
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.patterns import PatternTable, somebody

_NEEDLESS_QUOTES = re.compile(r'"((?:[^"\\\x00-\x20@(),:;<>\[\]]|\\[^"\\\x00-\x20@(),:;<>\[\]])+)"\Z')


class Account(NamedTuple):
    """Someone who can be named: a user who logs in, or a local user (his name, or his uid in digits)."""

    kind: Literal["user", "local"]
    name: str

    def __str__(self) -> str:
        return f"user {self.name}" if self.kind == "user" else f"local user {self.name}"


@dataclass(frozen=True, slots=True)
class Grant:
    """One pattern and who may use it."""

    pattern: str
    account: Account


class SenderRules:
    """The rules of one configuration; false where it names nobody. Raises: ValueError for a pattern that is none."""

    def __init__(self, grants: Iterable[Grant] = (), local: LocalMail | None = None) -> None:
        self._table: PatternTable[frozenset[Account]] = PatternTable()
        self._named: frozenset[Account] = frozenset()
        for grant in grants:
            pattern = _plain(grant.pattern)
            try:
                self._table.put(pattern, (self._table.get(pattern) or frozenset()) | {grant.account})
            except AddressError as error:
                raise ValueError(f"{grant.pattern!r} is not an address, domain or *.domain: {error}") from None
            self._named |= {grant.account}
        names = (local.domain, local.hostname) if local else ()
        self._machine = frozenset(domain_key(name) for name in names if name)

    def __bool__(self) -> bool:
        return bool(self._named)

    def binds(self, pattern: str) -> bool:
        """Tell whether senders of a route's pattern are named for somebody. Raises: AddressError"""
        return self._table.find(_key(somebody(pattern))) is not None

    def kept(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Return those that are named for somebody, each once."""
        return tuple(each for each in dict.fromkeys(addresses) if _is_address(each) and self._table.find(_key(each)) is not None)

    def check_envelope(self, sender: str, origin: Origin) -> Reply | None:
        """Return the refusal of an envelope sender, or None; the null sender passes, its header From is held to the rules."""
        return self._check(sender, origin) if sender and self._named else None

    def check_header(self, header_from: Sequence[str], authors: Sequence[str], sender: str, origin: Origin) -> Reply | None:
        """Return the refusal of a message for its header From, or None.

        `header_from` is the usual reading of it, `authors` every address that any reader may find there
        (`mail.authors`); each of them counts.
        """
        if not self._named:
            return None
        # Some crons sign as root what a job of somebody else has to say.
        also = "root" if sender and self._is_own_name(sender, origin) else ""
        for address in dict.fromkeys((*filter(_is_address, header_from), *authors)):
            refusal = self._check(address, origin, also)
            if refusal is not None:
                return refusal
        return None

    def _check(self, address: str, origin: Origin, also: str = "") -> Reply | None:
        """`also`: a further local name that the owner may use at this machine."""
        try:
            holders = self._table.find(_key(address))
        except AddressError as error:
            return Reply(550, "5.7.1", f"Nobody may send as <{address}>: {error}")
        accounts = accounts_of(origin)
        if holders is not None:
            return None if accounts & holders else _kept(address, origin)
        confined = accounts & self._named
        if not confined or self._is_own_name(address, origin, also):
            return None
        who = " and ".join(sorted(map(str, confined)))
        return Reply(550, "5.7.1", f"<{address}> is not allowed for {who}, who may use only the senders listed under access")

    def _is_own_name(self, address: str, origin: Origin, also: str = "") -> bool:
        """Tell whether this is the owner's own name at this machine, as in the output of his cron jobs."""
        if origin.owner is None or not origin.owner.name:
            return False
        if not _is_address(address):
            return False
        local, _, domain = _key(address).rpartition("@")
        return domain in self._machine and local in (origin.owner.name.lower(), also or None)


NOBODY_NAMED = SenderRules()


def accounts_of(origin: Origin) -> frozenset[Account]:
    """Return every account that a client is: by login, by the name of the socket's owner, and by its uid."""
    accounts = [Account("user", origin.user)] if origin.user else []
    if origin.owner is not None:
        accounts += [Account("local", name) for name in (origin.owner.name, str(origin.owner.uid)) if name]
    return frozenset(accounts)


def _kept(address: str, origin: Origin) -> Reply:
    who = " and ".join(_known(origin)) or "not identified"
    return Reply(550, "5.7.1", f"<{address}> is reserved for other users, and this client is {who}")


def _known(origin: Origin) -> list[str]:
    return [f"user {origin.user}"] * bool(origin.user) + [f"local user {origin.owner}"] * bool(origin.owner)


def _is_address(address: str) -> bool:
    try:
        return bool(_key(address))
    except AddressError:
        return False


def _key(address: str) -> str:
    """Return an address as it is compared. Raises: AddressError"""
    return normalise(_plain(address))


def _plain(address: str) -> str:
    """Return an address without quotes and backslashes that change nothing (RFC 5321 §4.1.2), its accents composed."""
    local, domain = split(unicodedata.normalize("NFC", address))
    needless = _NEEDLESS_QUOTES.match(local)
    return f"{needless[1].replace(chr(92), '')}@{domain}" if needless else f"{local}@{domain}" if domain else local
