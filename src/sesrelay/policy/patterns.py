"""Patterns that stand for senders, and the most specific one for an address: the address, its domain, `*.domain`.

Invariant: a pattern matches whole names only: `example.com` matches neither `notexample.com` nor
`example.com.evil.org`, and `*.example.com` matches sub-domains at any depth but not `example.com` itself.

Source: docs/configuration.md (routes); comparison by `mail.address.normalise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from sesrelay.mail.address import domain_key, normalise

T = TypeVar("T")


def pattern_key(pattern: str) -> str:
    """Return `pattern` in the one form that comparisons use: case and IDNA aside. Raises: AddressError"""
    if "@" in pattern:
        return normalise(pattern)
    return f"*.{domain_key(pattern[2:])}" if pattern.startswith("*.") else domain_key(pattern)


def somebody(pattern: str, name: str = "postmaster") -> str:
    """Return an address that `pattern` covers: itself, or `name` at its domain. Every domain has a postmaster (RFC 5321 §4.5.1)."""
    if "@" in pattern:
        return pattern
    return f"{name}@{'www' + pattern[1:] if pattern.startswith('*.') else pattern}"


def domain_of_pattern(pattern: str) -> str:
    """Return the domain that a pattern is about, as it is written there."""
    return pattern.rpartition("@")[2].removeprefix("*.")


class PatternTable(Generic[T]):
    """What each pattern stands for. Fill it once, then ask."""

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        self._by_parent = False

    def __len__(self) -> int:
        return len(self._values)

    def get(self, pattern: str) -> T | None:
        """Return what this very pattern stands for. Raises: AddressError"""
        return self._values.get(pattern_key(pattern))

    def put(self, pattern: str, value: T) -> None:
        """Let `pattern` stand for `value`. Raises: AddressError"""
        key = pattern_key(pattern)
        self._values[key] = value
        self._by_parent = self._by_parent or key.startswith("*.")

    def find(self, key: str) -> T | None:
        """Return what the most specific pattern for a normalised address stands for, or None."""
        found = self._values.get(key)
        if found is None:
            domain = key.rpartition("@")[2]
            found = self._values.get(domain)
            if found is None and self._by_parent:
                found = next((value for parent in _parents(domain) if (value := self._values.get(f"*.{parent}")) is not None), None)
        return found


def _parents(domain: str) -> Iterator[str]:
    while "." in domain:
        domain = domain.partition(".")[2]
        yield domain
