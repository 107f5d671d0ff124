"""SPF as a receiver evaluates it: whether a domain lets one address send for it.

Invariant: what the DNS does not tell is `Unanswered`, never a verdict.
Source: RFC 7208 §4.6 (terms and limits), §5 (mechanisms), §6.1 (redirect), §7 (macros).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from sesrelay.setup.zones.lookup import Dns
from sesrelay.setup.zones.spf import LOOKUPS_MAX, is_spf

Verdict = Literal["pass", "fail", "softfail", "neutral", "none"]

MX_MAX = 10  # RFC 7208 §4.6.4, for the hosts of one `mx`, and the names of one `ptr`
VOID_MAX = 2  # RFC 7208 §4.6.4: look-ups that find nothing

MODIFIER = "="  # in the place of a mechanism's qualifier
_VERDICTS: dict[str, Verdict] = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_LENGTH = r"(?:0|[1-9]\d{0,2})"
_EXPAND = r"%(?:\{([slodiphv])((?:[1-9]\d*)?)(r?)([.+,/_=-]*)\}|([%_-]))"
_TEXT = rf"(?:[!-$&-~]|{_EXPAND})*"
_LAST_LABEL = r"\.(?=[a-z0-9-]*[a-z-])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.?"
_MECHANISM = re.compile(
    r"(?P<qualifier>[+?~-]?)(?P<name>all|include|exists|ptr|a|mx|ip4|ip6)"
    rf"(?::(?P<target>.+?))?(?P<prefix>(?:/{_LENGTH})?(?://{_LENGTH})?)",
    re.I,
)
_MODIFIER = re.compile(rf"(?P<name>[a-z][a-z0-9_.-]*)=(?P<value>{_TEXT})", re.I)
_MACRO = re.compile(_EXPAND, re.I)
_NAME = re.compile(f"{_TEXT}(?:{_LAST_LABEL}|{_EXPAND})", re.I)
_LITERAL = {"%": "%", "_": " ", "-": "%20"}


class Broken(ValueError):
    """The record, or one that it names, is a permanent error to every receiver. The text says why."""


class Unanswered(Exception):
    """A name server gave no usable answer. The text says why."""


@dataclass(frozen=True, slots=True)
class _Term:
    """A mechanism, or a modifier: its `qualifier` is MODIFIER."""

    qualifier: str
    name: str
    target: str | None
    prefix: str


class Evaluation:
    """What receivers make of mail from `postmaster@DOMAIN` that this address brings. Good for one verdict."""

    def __init__(self, dns: Dns, address: str, domain: str, ehlo: str) -> None:
        self._dns, self._address = dns, ipaddress.ip_address(address)
        self._domain, self._ehlo = domain, ehlo
        self._lookups = self._voids = 0

    async def verdict(self, domain: str | None = None) -> Verdict:
        """Evaluate the record of `domain`, by default the sender's. Raises: Broken, Unanswered"""
        here = domain or self._domain
        records = [value for value in await self._ask(here, "TXT") if is_spf(value)]
        if len(records) > 1:
            raise Broken(f"{here} has several SPF records")
        if not records:
            return "none"
        terms, redirect = _terms(records[0], here)
        for term in terms:
            if await self._matches(term, here):
                return _VERDICTS[term.qualifier]
        if redirect is None:
            return "neutral"
        return await self._other(self._expand(redirect, here), f"redirect={redirect}")

    async def _other(self, domain: str, term: str) -> Verdict:
        self._count(term)
        found = await self.verdict(domain)
        if found == "none":
            raise Broken(f"{term}: there is no SPF record")
        return found

    async def _matches(self, term: _Term, here: str) -> bool:
        if term.name == "all":
            return True
        if term.name in ("ip4", "ip6"):
            return self._address in ipaddress.ip_network(f"{term.target}{term.prefix}", strict=False)
        target = self._expand(term.target, here) if term.target else here
        if term.name == "include":
            return await self._other(target, f"include:{target}") == "pass"
        self._count(f"{term.name}:{target}")
        if term.name == "exists":
            return bool(await self._ask(target, "A", counted=True))
        if term.name == "ptr":
            return await self._named_below(target)
        hosts = [target]
        if term.name == "mx":
            hosts = [value.split()[-1] for value in await self._ask(target, "MX", counted=True)]
            if len(hosts) > MX_MAX:
                raise Broken(f"mx:{target}: more than {MX_MAX} hosts")
        for host in hosts:
            for address in await self._ask(host, self._kind, counted=term.name == "a"):
                if self._address in ipaddress.ip_network(address + self._length(term.prefix), strict=False):
                    return True
        return False

    async def _named_below(self, target: str) -> bool:
        """Tell whether the address has a name at `target` or below it that leads back. Source: RFC 7208 §5.5"""
        try:
            names = [name.rstrip(".").lower() for name in await self._ask(self._address.reverse_pointer, "PTR", counted=True)]
            below = [name for name in names[:MX_MAX] if f".{name}".endswith(f".{target.rstrip('.').lower()}")]
            return any([str(self._address) in await self._ask(name, self._kind) for name in below])
        except Unanswered:
            return False

    @property
    def _kind(self) -> str:
        return "A" if self._address.version == 4 else "AAAA"

    def _length(self, prefix: str) -> str:
        four, _, six = prefix.partition("//")
        return four if self._address.version == 4 else f"/{six}" if six else ""

    def _count(self, term: str) -> None:
        self._lookups += 1
        if self._lookups > LOOKUPS_MAX:
            raise Broken(f"more than {LOOKUPS_MAX} terms that need a DNS look-up, at {term}")

    async def _ask(self, name: str, kind: str, *, counted: bool = False) -> tuple[str, ...]:
        found = (await self._dns.ask([(name, kind)]))[name, kind]
        if found.values is None:
            raise Unanswered(f"{name} {kind}: {found.trouble}")
        if counted and not found.values:
            self._voids += 1
            if self._voids > VOID_MAX:
                raise Broken(f"more than {VOID_MAX} void look-ups, the last one at {name}")
        return found.values

    def _expand(self, text: str, here: str) -> str:
        """Put in what macros stand for. Source: RFC 7208 §7.3"""
        four = self._address.version == 4
        values = {
            "s": f"postmaster@{self._domain}", "l": "postmaster", "o": self._domain, "d": here, "h": self._ehlo, "p": "unknown",
            "v": "in-addr" if four else "ip6",
            "i": str(self._address) if four else ".".join(self._address.exploded.replace(":", "")),
        }  # fmt: skip

        def value(found: re.Match[str]) -> str:
            letter, count, reverse, delimiters, literal = found.groups()
            if literal:
                return _LITERAL[literal]
            parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
            return ".".join((parts[::-1] if reverse else parts)[-int(count or 0) :])

        return _MACRO.sub(value, text)


def _terms(record: str, domain: str) -> tuple[list[_Term], str | None]:
    """Return the mechanisms of a record and where it redirects to, None where `all` decides. Raises: Broken"""
    found = [_read(text, domain) for text in record.split(" ")[1:] if text]
    for name in ("redirect", "exp"):
        if sum(term.name == name for term in found) > 1:
            raise Broken(f"{domain}: several {name}=")
    mechanisms = [term for term in found if term.qualifier != MODIFIER]
    decided = any(term.name == "all" for term in mechanisms)
    return mechanisms, next((term.target for term in found if term.name == "redirect" and not decided), None)


def _read(text: str, domain: str) -> _Term:
    mechanism, modifier = _MECHANISM.fullmatch(text), _MODIFIER.fullmatch(text)
    if mechanism is not None:
        term = _Term(mechanism["qualifier"], mechanism["name"].lower(), mechanism["target"], mechanism["prefix"])
    elif modifier is not None:
        term = _Term(MODIFIER, modifier["name"].lower(), modifier["value"], "")
    else:
        raise Broken(f"{domain}: {text} cannot be read")
    if not _is_sound(term):
        raise Broken(f"{domain}: {text} cannot be read")
    return term


def _is_sound(term: _Term) -> bool:
    if term.name in ("ip4", "ip6"):
        try:
            network = ipaddress.ip_network(f"{term.target}{term.prefix}", strict=False)
        except ValueError:
            return False
        return network.version == int(term.name[-1]) and "/" not in f"{term.target}"
    four, _, six = term.prefix.partition("//")
    if int(four[1:] or 0) > 32 or int(six or 0) > 128 or (term.prefix and term.name not in ("a", "mx")):
        return False
    if term.target is None:
        return term.name in ("all", "a", "mx", "ptr")
    if term.qualifier == MODIFIER and term.name not in ("redirect", "exp"):
        return True
    return term.name != "all" and _NAME.fullmatch(term.target) is not None
