"""Which rule a message follows: its sender's address, exact domain, `*.domain`, or the default.

Source: docs/configuration.md (routes); how patterns match: `policy.patterns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sesrelay.mail.address import AddressError, domain_key, domain_of, normalise
from sesrelay.mail.delivery import Priority
from sesrelay.mail.reply import Reply
from sesrelay.policy.limits import NO_LIMITS, RouteLimits
from sesrelay.policy.patterns import PatternTable

RouteBy = Literal["envelope", "header_from", "auto"]
REJECTED = Reply(550, "5.7.1", "This relay has no route for this sender's domain")


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One pattern and what it leads to. `source` is FILE:LINE; `transports` in order of preference; `reject` refuses."""

    pattern: str
    source: str
    name: str
    transports: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    reject: bool = False
    limits: RouteLimits = NO_LIMITS
    priority_header: str = ""


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule that did not win, and why, for `sesrelay route`. `unlike`: it is simply about somebody else."""

    rule: str
    source: str
    why: str
    unlike: bool = False


class RoutingTable:
    """The rules of one configuration, ready for look-ups. Immutable once made.

    `null_sender` None: the null sender is routed by the header From; `null_source` is where that is written, if it is.

    Raises: ValueError for a pattern that is none, or that stands twice.
    """

    def __init__(
        self,
        rules: Iterable[RouteRule],
        default: RouteRule,
        null_sender: RouteRule | None = None,
        *,
        route_by: RouteBy = "auto",
        local_domains: Iterable[str] = (),
        null_source: str = "",
    ) -> None:
        self.rules = tuple(rules)
        self.default = default
        self.null_sender = null_sender
        self._null_source = null_source
        self.route_by = route_by
        self.limits = {rule.name: rule.limits for rule in self.rules if rule.limits != NO_LIMITS}
        self._local = frozenset(domain_key(domain) for domain in local_domains if domain)
        self._table: PatternTable[RouteRule] = PatternTable()
        for rule in self.rules:
            self._put(rule)

    @property
    def all_rules(self) -> tuple[RouteRule, ...]:
        """The rules, the default, and the null sender's where it has one of its own."""
        return (*self.rules, self.default, *((self.null_sender,) if self.null_sender is not None else ()))

    def route(self, sender: str, header_from: Sequence[str] = ()) -> RouteRule:
        """Return the rule for a message; `sender` is empty for the null sender."""
        if not sender and self.null_sender is not None:
            return self.null_sender
        key = self.routing_address(sender, header_from)
        if not key:
            # Nothing to go by: the null sender without a header From.
            return replace(self.default, pattern="null_sender_route", name="null", source=self._null_source or self.default.source)
        return self.match(key)

    def routing_address(self, sender: str, header_from: Sequence[str] = ()) -> str:
        """Return the address that decides, by `route_by`: the envelope sender or the first one of the header From."""
        first = header_from[0] if header_from else ""
        if not sender:
            return first
        if self.route_by == "header_from":
            return first or sender
        if self.route_by == "auto" and first and domain_of(sender) in self._local:
            return first
        return sender

    def match(self, address: str) -> RouteRule:
        """Return the most specific rule for `address`: the address, its domain, the nearest parent, the default."""
        try:
            key = normalise(address)
        except AddressError:
            return self.default
        return self._table.find(key) or self.default

    def shape(self) -> str:
        """Return as text what decides where mail goes: the same for tables that route alike."""
        rules = [(one.pattern, one.name, one.transports, int(one.priority), one.reject) for one in self.all_rules]
        return repr((rules, self.null_sender is None, self.route_by, sorted(self._local)))

    def explain(self, sender: str, header_from: Sequence[str] = ()) -> tuple[RouteRule, list[Considered]]:
        """Return the rule that wins, and every other one with the reason why it did not."""
        winner = self.route(sender, header_from)
        address = self.routing_address(sender, header_from)
        considered: list[Considered] = []
        if self.null_sender is not None and winner is not self.null_sender:
            considered.append(Considered("null_sender_route", self.null_sender.source, "the sender is not the null sender"))
        for rule in self.rules:
            if rule is not winner:
                why, unlike = self._why_not(rule, winner, sender, address)
                considered.append(Considered(rule.pattern, rule.source, why, unlike))
        if winner.pattern not in ("default_route", "null_sender_route"):
            considered.append(Considered("default_route", self.default.source, f"{winner.pattern} is more specific"))
        return winner, considered

    def _why_not(self, rule: RouteRule, winner: RouteRule, sender: str, address: str) -> tuple[str, bool]:
        """Return why a rule did not win, and whether it is about somebody else."""
        if not sender and winner is self.null_sender:
            return "the null sender has its own route", True
        if not address:
            return "the sender has no domain to compare", True
        domain = domain_of(address)
        if "@" in rule.pattern:
            return f"the sender is not {rule.pattern}", domain != domain_of(rule.pattern)
        parent = rule.pattern.removeprefix("*.")
        key = domain_key(parent)
        if rule.pattern.startswith("*."):
            if domain == key:
                return f"*.{parent} covers sub-domains only, not {parent} itself", False
            if domain.endswith("." + key):
                return f"{winner.pattern} is more specific", False
            return f"{domain or address} is not below {parent}", True
        if domain == key:
            return f"{winner.pattern} is more specific", False
        if domain.endswith("." + key):
            return f"{domain} is a sub-domain; write *.{parent} to match it", False
        return f"{domain or address} is not {parent}", True

    def _put(self, rule: RouteRule) -> None:
        try:
            first = self._table.get(rule.pattern)
            if first is not None:
                raise ValueError(f"{rule.pattern} is defined twice: {first.source} and {rule.source}")
            self._table.put(rule.pattern, rule)
        except AddressError as error:
            raise ValueError(f"{rule.pattern!r} is not an address, domain or *.domain: {error}") from None


def choose(transports: Sequence[str], paused_for: Mapping[str, float], patience: Mapping[str, float]) -> str:
    """Return the first transport whose pause, if it has one, has not outlasted its patience; the first where all have.

    Units: `paused_for` seconds since each paused transport's obstacle began; `patience` seconds, `failover_after`.
    """
    for name in transports:
        if name not in paused_for or paused_for[name] < patience[name]:
            return name
    return transports[0]
