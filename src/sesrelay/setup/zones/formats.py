"""Records as zone files, Route 53 and people write them.

Source: RFC 1035 §5.1 (master files), §3.3.14 (character strings); Route 53 developer guide, "Supported DNS record types"
(an octet of a TXT value is a backslash and three octal digits there, three decimal ones in master files).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sesrelay.setup.zones.plan import Change, RecordSet
from sesrelay.setup.zones.records import Record

STRING_MAX = 255  # octets, RFC 1035 §3.3
_STRINGS = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPES = re.compile(rb"\\(\d{3}|.)", re.DOTALL)


def quoted(text: str, *, octal: bool = False) -> str:
    """Return a TXT value as strings of at most 255 octets, in quotes.

    `octal`: with octets as Route 53 writes them, not as master files do.
    """
    octets = text.encode("utf-8", "surrogateescape")
    pieces = [octets[n : n + STRING_MAX] for n in range(0, len(octets), STRING_MAX)] or [b""]
    return " ".join('"' + "".join(_escaped(octet, "o" if octal else "d") for octet in piece) + '"' for piece in pieces)


def unquoted(text: str, *, octal: bool = False) -> str:
    """Return the text of a TXT value, whether it is in quotes or not."""
    if not text.startswith('"'):
        return text
    base = 8 if octal else 10
    octets = b"".join(_STRINGS.findall(text.encode()))
    return _ESCAPES.sub(lambda found: _octet(found[1], base), octets).decode("utf-8", "replace")


def rdata(kind: str, value: str, *, octal: bool = False) -> str:
    """Return a value as a master file has it: TXT in quotes, names with their final dot."""
    if kind == "TXT":
        return quoted(value, octal=octal)
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
        steps += [{"Action": "DELETE", "ResourceRecordSet": _record_set(one, one.values, one)} for one in change.removes]
        action = "UPSERT" if change.old else "CREATE"
        steps.append({"Action": action, "ResourceRecordSet": _record_set(change, change.after, change.old)})
    return {"Comment": "sesrelay: records for Amazon SES", "Changes": steps}


def _record_set(one: Change | RecordSet, values: Sequence[str], there: RecordSet | None) -> dict[str, Any]:
    """Return a set as Route 53 takes it. What is there already is written as Route 53 itself writes it, to the octet."""
    written: dict[str, list[str]] = {}  # several may be one text: cut elsewhere, or of other octets that are no UTF-8
    for value, as_written in zip(there.values, there.ids, strict=False) if there else ():
        written.setdefault(value, []).append(as_written)
    records = [{"Value": written[value].pop(0) if written.get(value) else rdata(one.type, value, octal=True)} for value in values]
    return {"Name": f"{one.name}.", "Type": one.type, "TTL": one.ttl, "ResourceRecords": records}


def _escaped(octet: int, form: str) -> str:
    if octet in b'"\\':
        return f"\\{octet:c}"
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03{form}}"


def _octet(escape: bytes, base: int) -> bytes:
    try:
        return bytes([int(escape, base)]) if len(escape) == 3 else escape
    except ValueError:  # no number of this base, or of no octet
        return escape
