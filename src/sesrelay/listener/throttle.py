"""How long the next login has to wait after those that failed: by client address, and by user name.

Each failure doubles the wait, time takes failures back. A client that has logged in as a user before is judged by what
the two of them do, so that nobody can lock a user out by failing in his name, or beside him on the same host.

Invariant: the tables are bounded; who failed longest ago is forgotten first.

Units: seconds of the loop's time, which the caller passes.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

BASE = 0.25  # the wait after one failure
LONGEST = 16.0
FORGET = 60.0  # one failure is forgotten in so long
COUNTED = 12.0  # no more failures than these, so that all is forgiven within minutes
TRUST_LOST = 5.0  # failures after which a client that had logged in is judged like any other
TABLE = 4096
LOOPBACK = "::/64"

Key = tuple[str, ...]


@dataclass(slots=True)
class _Record:
    failures: float
    at: float


class Throttle:
    """Failures by key. `keys` says which ones a login is judged by."""

    def __init__(self, size: int = TABLE) -> None:
        self._size = size
        self._records: OrderedDict[Key, _Record] = OrderedDict()
        self._trusted: OrderedDict[Key, None] = OrderedDict()

    def keys(self, client: str, user: str) -> tuple[Key, ...]:
        """Return what a login is judged by."""
        network = _network(client)
        pair = ("pair", network, user)
        if pair in self._trusted:
            return (pair,)
        # Every program of this machine has the same address: it tells nothing of who guesses.
        return (("user", user),) if _everybodys(network) else (("user", user), ("client", network))

    def wait(self, keys: tuple[Key, ...], now: float) -> float:
        """Return for how long no login under these keys may begin."""
        return max(self._until(key, now) for key in keys) - now

    def failed(self, keys: tuple[Key, ...], now: float) -> None:
        """Take note of a failure."""
        for key in keys:
            failures = min(self._failures(key, now) + 1, COUNTED)
            self._records[key] = _Record(failures, now)
            self._records.move_to_end(key)
            if failures >= TRUST_LOST:
                self._trusted.pop(key, None)
        while len(self._records) > self._size:
            self._records.popitem(last=False)

    def succeeded(self, client: str, user: str) -> None:
        """Take note of a login; what failed before is left to time, or an account of one's own would undo guesses."""
        pair = ("pair", _network(client), user)
        self._trusted[pair] = None
        self._trusted.move_to_end(pair)
        while len(self._trusted) > self._size:
            self._trusted.popitem(last=False)

    def _failures(self, key: Key, now: float) -> float:
        record = self._records.get(key)
        return max(record.failures - (now - record.at) / FORGET, 0.0) if record else 0.0

    def _until(self, key: Key, now: float) -> float:
        record = self._records.get(key)
        if record is None:
            return now
        return max(record.at + min(BASE * 2 ** (record.failures - 1), LONGEST), now)


def _everybodys(network: str) -> bool:
    return not network or network.startswith("127.") or network == LOOPBACK


def _network(client: str) -> str:
    """Return what one person has: an IPv4 address, or 64 bits of an IPv6 one; empty is a Unix socket."""
    if ":" not in client:
        return client
    return str(ipaddress.ip_network((client.partition("%")[0], 64), strict=False))
