"""Which deliveries a Filter means, as one test over what the store keeps in normalised form."""

from __future__ import annotations

import contextlib

from sesrelay.mail import queue_id
from sesrelay.mail.address import AddressError, comparable, domain_key
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter

OPEN = (State.QUEUED, State.IN_FLIGHT, State.HELD)


def key(address: str) -> str:
    """Return `address` in the form that filters compare; never fails, since the address is not ours to refuse here."""
    if address.isascii() and not address.endswith("."):
        return address.lower()  # what `normalise` comes to for ASCII, without its checks: this runs for each recipient
    return comparable(address)


def bare_id(any_id: str) -> str:
    """Return an id as people give it, without the brackets of a Message-ID."""
    text = any_id.strip()
    return text[1:-1] if text.startswith("<") and text.endswith(">") else text


class Pattern:
    """A whole address, all of a domain (`*@example.com`, `@example.com`), or `<>` for the null sender.

    `whole` or `suffix` is what is compared; neither: it matches nothing.
    """

    __slots__ = ("suffix", "whole")

    def __init__(self, text: str) -> None:
        self.whole: str | None = None
        self.suffix: str | None = None
        if text.startswith(("@", "*@")):
            with contextlib.suppress(AddressError):  # no address has such a domain: it matches nothing
                self.suffix = "@" + domain_key(text.partition("@")[2])
        else:
            self.whole = "" if text == "<>" else key(text)

    def __call__(self, address: str) -> bool:
        return address == self.whole if self.suffix is None else address.endswith(self.suffix)


class Match:
    """A Filter made ready. `ids` is None where it names none; ids that cannot be one match nothing."""

    __slots__ = ("before", "ids", "recipient", "sender", "states", "transport")

    def __init__(self, filter: Filter, now: float) -> None:
        self.states = frozenset(filter.states or OPEN)
        self.ids = sorted({queue_id.decode(text) for text in filter.ids if queue_id.PATTERN.match(text)}) if filter.ids else None
        self.sender = None if filter.sender is None else Pattern(filter.sender)
        self.recipient = None if filter.recipient is None else Pattern(filter.recipient)
        self.transport = filter.transport
        self.before = None if filter.older_than is None else now - filter.older_than

    def __call__(self, state: State, transport: str, sender: str, recipient: str, accepted: float) -> bool:
        """Tell whether a delivery is meant; `sender` and `recipient` as `key` gives them. Ids are the caller's to look at."""
        return (
            state in self.states
            and (self.transport is None or transport == self.transport)
            and (self.before is None or accepted <= self.before)
            and (self.sender is None or self.sender(sender))
            and (self.recipient is None or self.recipient(recipient))
        )


def restricts(filter: Filter) -> bool:
    """Tell whether `filter` names anything: a change wants one that does."""
    return filter != Filter()
