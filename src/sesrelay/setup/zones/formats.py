"""Records as zone files, Route 53 and people write them.

Source: RFC 1035 §5.1 (master files), §3.3.14 (character strings); Route 53 developer guide, "Supported DNS record types".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sesrelay.setup.zones.plan import Change
from sesrelay.setup.zones.records import Record

STRING_MAX = 255  # octets, RFC 1035 §3.3
_STRINGS = re.compile(r'"((?:[^"\\]|\\.)*)"')


def quoted(text: str) -> str:
    """Return a TXT value as master files and Route 53 have it: strings of at most 255 octets, in quotes."""
    pieces = [text[n : n + STRING_MAX] for n in range(0, len(text), STRING_MAX)] or [""]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)


def unquoted(text: str) -> str:
    """Return the text of a TXT value, whether it is in quotes or not."""
    if not text.startswith('"'):
        return text
    return "".join(re.sub(r"\\(\d{3}|.)", _unescaped, piece) for piece in _STRINGS.findall(text))


def rdata(kind: str, value: str) -> str:
    """Return a value as a master file has it: TXT in quotes, names with their final dot."""
    if kind == "TXT":
        return quoted(value)
    return value if value.endswith(".") else f"{value}."


def bind(records: Iterable[Record], domain: str) -> str:
    """Return lines for a zone file; they hold whatever $ORIGIN is."""
    lines = [f"; records of {domain} for Amazon SES"]
    for record in records:
        lines.append(f"{record.name}.\t{record.ttl}\tIN\t{record.type}\t{rdata(record.type, record.value)}")
    return "\n".join(lines) + "\n"


def change_batch(changes: Iterable[Change]) -> dict[str, Any]:
    """Return a Route 53 change batch: what stays is not in it."""
    steps: list[dict[str, Any]] = []
    for change in changes:
        if change.action not in ("create", "update"):
            continue
        steps += [
            {"Action": "DELETE", "ResourceRecordSet": _record_set(one.name, one.type, one.ttl, one.values)}
            for one in change.removes
        ]
        action = "UPSERT" if change.old else "CREATE"
        steps.append({"Action": action, "ResourceRecordSet": _record_set(change.name, change.type, change.ttl, change.after)})
    return {"Comment": "sesrelay: records for Amazon SES", "Changes": steps}


def _record_set(name: str, kind: str, ttl: int, values: Sequence[str]) -> dict[str, Any]:
    return {"Name": f"{name}.", "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": rdata(kind, value)} for value in values]}


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 8)) if found[1].isdigit() and len(found[1]) == 3 else found[1]
