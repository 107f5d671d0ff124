"""MTA-STS in words: the record that announces a policy, the policy itself, and whether a mail host is in it.

Invariant: what is not well-formed is no policy; nothing is guessed.

Source: RFC 8461 §3.1 (record), §3.2 (policy), §4.1 (names); RFC 8460 §3 (the record that asks for reports).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

POLICY_MAX = 64 * 1024  # octets, RFC 8461 §3.3
AGE_MAX = 31_557_600  # seconds, §3.2
WELL_KNOWN = "/.well-known/mta-sts.txt"

_RECORD = re.compile(r"v=STSv1[ \t]*;")
_FIELD = re.compile(r"[ \t]*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*=([^;]*)\Z")
_ID = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:(.*)\Z")
_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*\Z")


class PolicyError(ValueError):
    """It is no policy; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a domain asks of those who send to it. Units: `max_age` seconds."""

    mode: Literal["enforce", "testing", "none"]
    mx: tuple[str, ...]
    max_age: int

    def names(self, host: str) -> bool:
        """Tell whether mail may be taken to this host; `*.` stands for one label."""
        host = host.lower().removesuffix(".")
        return any(host == one or (one.startswith("*.") and host.partition(".")[2] == one[2:]) for one in self.mx)

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy as its file has it, a line each."""
        return ("version: STSv1", f"mode: {self.mode}", *(f"mx: {one}" for one in self.mx), f"max_age: {self.max_age}")


def record_id(texts: Iterable[str]) -> str | None:
    """Return the policy's id out of the TXT records at `_mta-sts.DOMAIN`; None where there is no policy, or more than one."""
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        return None
    for part in records[0].split(";")[1:]:
        found = _FIELD.match(part)
        if found and found[1].lower() == "id" and _ID.match(name := found[2].strip(" \t")):
            return name
    return None


def reports_wanted(texts: Iterable[str]) -> str | None:
    """Return the record that asks for TLS reports out of those at `_smtp._tls.DOMAIN`, or None where there is not just one."""
    records = [text for text in texts if re.match(r"v=TLSRPTv1[ \t]*;", text)]
    return records[0] if len(records) == 1 and "rua=" in records[0].replace(" ", "") else None


def parse(text: str) -> Policy:
    """Read a policy. Raises: PolicyError."""
    first: dict[str, str] = {}
    mx: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip():
            continue
        found = _LINE.match(line)
        if not found:
            raise PolicyError(f"a line is not `key: value`: {line[:80]!r}")
        key, value = found[1], found[2].strip(" \t")
        if key == "mx":
            mx.append(value.lower().removesuffix("."))
        else:
            first.setdefault(key, value)
    return _checked(first, mx)


def _checked(first: dict[str, str], mx: Sequence[str]) -> Policy:
    if first.get("version") != "STSv1":
        raise PolicyError("its version is not STSv1")
    age = first.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age) or int(age) > AGE_MAX:
        raise PolicyError(f"its max_age is not a number up to {AGE_MAX}")
    for pattern in mx:
        if not _PATTERN.match(pattern):
            raise PolicyError(f"its mx {pattern[:80]!r} is not a name")
    match first.get("mode"):
        case "none":
            return Policy("none", tuple(mx), int(age))
        case "enforce" | "testing" as mode:
            if not mx:
                raise PolicyError("it lists no mx")
            return Policy(mode, tuple(mx), int(age))
        case _:
            raise PolicyError("its mode is not enforce, testing or none")
