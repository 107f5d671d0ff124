"""Answers of the DNS, kept for as long as they say: what is there, and what is certainly not.

Implements what dnspython wants of a resolver's cache, by the clock that we are given.

Invariant: a negative answer without an SOA record is not kept, as nothing says for how long it holds.
Invariant: no answer is kept that is larger than one datagram, so that no stranger's zone fills the memory.

Source: RFC 2308 §5 (negative answers), RFC 2181 §8 (a TTL of long is cut).
"""

from __future__ import annotations

from collections import OrderedDict

import dns.exception
import dns.name
import dns.resolver
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from sesrelay.seams import Clock

SIZE = 10_000  # answers
LARGEST = 1232  # octets of one, DNS Flag Day 2020; read, it takes fifteen times as much
LONGEST = 86_400.0  # seconds; what a careless zone says for longer is asked again
LONGEST_NEGATIVE = 10_800.0  # RFC 2308 §5: one to three hours have worked well

Key = tuple[dns.name.Name, RdataType, RdataClass]


class AnswerCache:
    """The answers used last. Units: what the clock's `monotonic` has."""

    def __init__(self, clock: Clock, size: int = SIZE) -> None:
        self._clock = clock
        self._size = size
        self._kept: OrderedDict[Key, tuple[float, dns.resolver.Answer]] = OrderedDict()

    def get(self, key: Key) -> dns.resolver.Answer | None:
        """Return the answer, unless it has expired."""
        found = self._kept.get(key)
        if found is None:
            return None
        until, answer = found
        if until <= self._clock.monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return answer

    def put(self, key: Key, answer: dns.resolver.Answer) -> None:
        """Keep an answer, positive or negative."""
        seconds = lifetime(answer)
        if seconds <= 0.0 or _large(answer):
            return
        self._kept[key] = self._clock.monotonic() + seconds, answer
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


def _large(answer: dns.resolver.Answer) -> bool:
    try:
        answer.response.to_wire(max_size=LARGEST)
    except dns.exception.TooBig:
        return True
    return False


def lifetime(answer: dns.resolver.Answer) -> float:
    """Return the seconds for which an answer holds."""
    seconds = float(answer.chaining_result.minimum_ttl)
    if answer.rrset is not None:
        return min(seconds, LONGEST)
    has_soa = any(rrset.rdtype == RdataType.SOA for rrset in answer.response.authority)
    return min(seconds, LONGEST_NEGATIVE) if has_soa else 0.0
