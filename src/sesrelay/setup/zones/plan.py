"""What has to change in a zone so that it has the wanted records, and what is there stays.

Invariant: a record that serves stays untouched; other TXT values at the same name stay; what cannot stand beside a wanted
record is a conflict, and changed only where that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sesrelay.setup.zones import spf
from sesrelay.setup.zones.records import Record, Type, same_kind, serves

Action = Literal["keep", "create", "update", "conflict"]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All records of one name and type as a zone has them. `plain`: neither an alias nor weighted by place or chance."""

    name: str
    type: str
    values: tuple[str, ...]
    ttl: int = 300
    plain: bool = True
    ids: tuple[str, ...] = ()
    """What the provider knows each value by: an id, or the value as the provider writes it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step. `before` and `after`: the values of the whole set; `removes`: sets of other types that have to go first."""

    action: Action
    name: str
    type: Type
    before: tuple[str, ...]
    after: tuple[str, ...]
    ttl: int
    note: str | None = None
    old: RecordSet | None = None
    removes: tuple[RecordSet, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "name": self.name,
            "type": self.type,
            "before": list(self.before),
            "after": list(self.after),
            "ttl": self.ttl,
            "note": self.note,
        }


class Zone(Protocol):
    """A zone at a provider. Raises: ZoneError, AwsError from each method."""

    @property
    def name(self) -> str: ...

    def present(self, names: Iterable[str]) -> list[RecordSet]:
        """Return every record set at these names, of whatever type."""
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes, all or none."""
        ...


class ZoneError(Exception):
    """The provider refused, or cannot be asked, or has no such zone. The text is for a person."""


def plan(records: Iterable[Record], present: Iterable[RecordSet], *, replace: bool = False) -> list[Change]:
    """Return a change for each name and type that is wanted. `replace`: what is in the way goes."""
    by_name: dict[str, dict[str, RecordSet]] = {}
    for one in present:
        by_name.setdefault(one.name.lower(), {})[one.type] = one
    return [_change(record, by_name.get(record.name.lower(), {}), replace) for record in records]


def _change(record: Record, there: dict[str, RecordSet], replace: bool) -> Change:
    old = there.get(record.type)
    before = old.values if old else ()
    # A CNAME suffers nothing beside it (RFC 1034 §3.6.2).
    beside = [one for kind, one in there.items() if kind != record.type and "CNAME" in (kind, record.type)]
    kept, rivals = _sorted_out(record, before)
    if old and old.plain and not beside and len(rivals) == 1 and serves(record, rivals[0]):
        return Change("keep", record.name, record.type, before, before, old.ttl, old=old)
    value, obstacle = record.value, None
    if record.is_spf:
        value = spf.merge(rivals, record.spf_terms)
        if spf.lookups(value) > spf.LOOKUPS_MAX:
            obstacle = f"the merged SPF record would need more than {spf.LOOKUPS_MAX} DNS look-ups, which is an error"
    elif rivals:
        obstacle = f"{record.name} has {', '.join(rivals)} already"
    if beside:
        obstacle = f"{record.name} has {', '.join(f'{one.type} {_shown(one)}' for one in beside)} already"
    if old and not old.plain:
        obstacle = f"{record.name} {record.type} is an alias record or has a routing policy (geolocation, weight, health check)"
    after = (*kept, value)
    if obstacle and not (replace and (old is None or old.plain) and all(one.plain for one in beside)):
        return Change("conflict", record.name, record.type, before, before, record.ttl, obstacle, old)
    ttl = old.ttl if old else record.ttl
    note = "merged into one SPF record" if record.is_spf and rivals else None
    return Change("update" if old else "create", record.name, record.type, before, after, ttl, note, old, tuple(beside))


def _sorted_out(record: Record, values: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values that have nothing to do with the wanted one, and those that stand in its place."""
    if record.type != "TXT":
        return [], list(values)
    return [v for v in values if not same_kind(record, v)], [v for v in values if same_kind(record, v)]


def _shown(one: RecordSet) -> str:
    return ", ".join(one.values) or "(an alias)"
