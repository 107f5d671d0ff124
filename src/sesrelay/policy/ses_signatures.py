"""Which DKIM signature of an application survives what SES and we do to its message.

SES takes one DKIM-Signature only and adds its own. One that will not verify harms: some hosts judge by the first.

Source: RFC 6376 §3.5 (tags), §5.4 (h= names what is covered, absent fields too); SES developer guide (Date and Message-ID
are overwritten).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sesrelay.mail.headers import Field

_OVERWRITTEN = ("Date", "Message-ID")


@dataclass(frozen=True, slots=True)
class Remaining:
    fields: list[Field]
    receipts: tuple[str, ...]


def unbroken(fields: list[Field], touched: Collection[str], *, body_changed: bool) -> Remaining:
    """Return `fields` with at most one DKIM-Signature: the first that neither SES nor a change of ours breaks."""
    kept: list[Field] = []
    receipts: list[str] = []
    stands = False
    for field in fields:
        if field.key != "dkim-signature":
            kept.append(field)
            continue
        tags = _tags(field.value)
        why = _broken(tags, touched, body_changed) or ("another signature stands above it" if stands else "")
        if why:
            domain = tags.get("d")
            receipts.append(f"removed DKIM-Signature{f' of {domain}' if domain else ''}: {why}")
        else:
            stands = True
            kept.append(field)
    return Remaining(kept, tuple(receipts))


def _broken(tags: dict[str, str], touched: Collection[str], body_changed: bool) -> str:
    covered = {name.strip().lower() for name in tags.get("h", "").split(":") if name.strip()}
    for name in _OVERWRITTEN:
        if name.lower() in covered:
            return f"it signs {name}, which SES overwrites"
    if "dkim-signature" in touched:
        return "the signature itself had to be changed"
    changed = sorted(covered & set(touched))
    if changed:
        return f"it signs {changed[0]}, which was changed"
    return "it signs the body, which was re-encoded" if body_changed else ""


def _tags(value: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in value.split(";"))
    return {name.strip().lower(): "".join(text.split()) for name, _, text in pairs if name.strip()}
