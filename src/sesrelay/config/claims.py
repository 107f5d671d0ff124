"""Who claims which senders under `access`, and what no two of them may.

Invariant: whatever one file gives to somebody, no other file gives to anybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from sesrelay.config.document import Document
from sesrelay.config.model import Access
from sesrelay.config.problem import KeyPath, Place, shown
from sesrelay.mail.address import AddressError
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.patterns import pattern_key
from sesrelay.policy.senders import Account, Grant, SenderRules


def check_claims(document: Document) -> None:
    """Report patterns that two files claim, or one account twice; several accounts of one file may share one."""
    first: dict[str, tuple[Place, set[Account]]] = {}
    for path, account, pattern in sorted(_claims(document), key=lambda claim: _order(document, claim[0])):
        try:
            key = pattern_key(pattern)
        except AddressError:
            continue  # reported as no pattern already
        place = document.value_place(path)
        before, accounts = first.setdefault(key, (place, set()))
        if place.file != before.file:
            document.report(path, f"{shown(pattern)} is defined twice (first at {before}; users that share it must be in one file)")
        elif account in accounts:
            document.report(path, f"{shown(pattern)} is defined twice (first at {before})")
        accounts.add(account)


def sender_rules(access: Access, local: LocalMail) -> SenderRules:
    """Make the rules of a configuration that has no problem."""
    users = [Grant(pattern, Account("user", user.name)) for user in access.users for pattern in user.senders]
    owners = [Grant(pattern, Account("local", name)) for name, patterns in access.local_users.items() for pattern in patterns]
    return SenderRules((*users, *owners), local)


def _order(document: Document, path: KeyPath) -> tuple[bool, str, int, int]:
    """Order places as the files are read: the main one first."""
    place = document.value_place(path)
    return place.file != document.file, place.file, place.line, place.column


def _claims(document: Document) -> Iterator[tuple[KeyPath, Account, str]]:
    """Return every claim: where it stands, whose it is, the pattern."""
    users = document.get(("access", "users"))
    for index in range(len(users) if isinstance(users, list) else 0):
        path: KeyPath = ("access", "users", index)
        name = document.get((*path, "name"))
        for place, pattern in document.texts((*path, "senders")):
            yield place, Account("user", str(name)), pattern
    owners = document.get(("access", "local_users"))
    for owner in owners if isinstance(owners, dict) else ():
        for place, pattern in document.texts(("access", "local_users", owner)):
            yield place, Account("local", owner), pattern
