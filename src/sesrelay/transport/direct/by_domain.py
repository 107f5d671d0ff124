"""What a way out to the recipients' own hosts says before it has looked anything up."""

from __future__ import annotations

from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Priority

BATCH_LIMIT = 100  # recipients that every host must take in a transaction (RFC 5321 §4.5.3.1.8)
CONCURRENCY = 10


class ByDomain:
    """That part of `sesrelay.seams.Transport`."""

    batch_limit: int = BATCH_LIMIT
    concurrency: int = CONCURRENCY

    def nexthop(self, recipient: str) -> str:
        return domain_of(recipient)

    def pace(self, recipients: int, now: float, priority: Priority = Priority.NORMAL) -> float:
        return 0.0

    def give_back(self, recipients: int) -> None:
        """Do nothing: a recipient's host has no rate of ours."""
