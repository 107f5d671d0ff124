"""What a look at the whole finds: one line a check, with the remedy where there is something to mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """`check`: what was looked at, a few fixed words; `subject`: of what. `remedy`: what to do, None where all is well."""

    check: str
    subject: str
    status: Status
    message: str
    remedy: str | None = None


def ok(check: str, subject: str, message: str) -> Check:
    return Check(check, subject, "ok", message)


def warn(check: str, subject: str, message: str, remedy: str) -> Check:
    return Check(check, subject, "warn", message, remedy)


def fail(check: str, subject: str, message: str, remedy: str) -> Check:
    return Check(check, subject, "fail", message, remedy)


def document(checks: Iterable[Check]) -> dict[str, Any]:
    """Return the public document: see the contract."""
    listed = list(checks)
    return {"ok": not any(one.status == "fail" for one in listed), "checks": [asdict(one) for one in listed]}
