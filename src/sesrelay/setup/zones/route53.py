"""A zone at Amazon Route 53.

Source: Route 53 API reference, ListHostedZones, ListResourceRecordSets, ChangeResourceRecordSets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sesrelay.aws.clients import Clients, told
from sesrelay.setup.zones.formats import change_batch, unquoted
from sesrelay.setup.zones.plan import Change, RecordSet, ZoneError

_OCTAL = re.compile(r"\\(\d{3})")


class Route53Zone:
    """The public zone that holds a domain. Implements `plan.Zone`."""

    def __init__(self, clients: Clients, zone_id: str, name: str) -> None:
        self._route53 = clients["route53"]
        self._id = zone_id
        self._name = name

    @property
    def name(self) -> str:
        return f"{self._name} ({self._id})"

    @classmethod
    def find(cls, clients: Clients, domain: str, zone_id: str | None = None) -> Route53Zone:
        """Return the zone `zone_id`, or the one whose name is the longest end of the domain's. Raises: ZoneError, AwsError"""
        if zone_id is not None:
            with told(f"read the hosted zone {zone_id}"):
                zone = clients["route53"].get_hosted_zone(Id=zone_id)["HostedZone"]
            if not _within(domain, _bare(zone["Name"])):
                raise ZoneError(f"the hosted zone {zone_id} is that of {_bare(zone['Name'])}, which does not contain {domain}")
            return cls(clients, _short(zone["Id"]), _bare(zone["Name"]))
        with told("list the hosted zones"):
            pages = clients["route53"].get_paginator("list_hosted_zones").paginate()
            zones = [zone for page in pages for zone in page["HostedZones"] if not zone.get("Config", {}).get("PrivateZone")]
        held = [(_bare(zone["Name"]), _short(zone["Id"])) for zone in zones if _within(domain, _bare(zone["Name"]))]
        longest = max((len(name) for name, _ in held), default=0)
        best = [(name, found) for name, found in held if len(name) == longest]
        if not best:
            raise ZoneError(
                f"this AWS account has no public hosted zone that contains {domain}; for another account, use --profile NAME"
            )
        if len(best) > 1:
            raise ZoneError(
                f"several hosted zones are named {best[0][0]}: choose one with --zone-id {'|'.join(found for _, found in best)}"
            )
        return cls(clients, best[0][1], best[0][0])

    def present(self, names: Iterable[str]) -> list[RecordSet]:
        found: list[RecordSet] = []
        for name in dict.fromkeys(name.lower() for name in names):
            with told(f"read the records of {name}"):
                answer = self._route53.list_resource_record_sets(HostedZoneId=self._id, StartRecordName=f"{name}.", MaxItems="100")
            found += [_record_set(one) for one in answer["ResourceRecordSets"] if _bare(one["Name"]).lower() == name]
        return found

    def apply(self, changes: Sequence[Change]) -> None:
        batch = change_batch(changes)
        if batch["Changes"]:
            with told(f"change the zone {self._name}"):
                self._route53.change_resource_record_sets(HostedZoneId=self._id, ChangeBatch=batch)


def _record_set(one: dict[str, Any]) -> RecordSet:
    plain = "AliasTarget" not in one and "SetIdentifier" not in one
    kind = one["Type"]
    written = tuple(record["Value"] for record in one.get("ResourceRecords", ()))
    values = tuple(_value(kind, value) for value in written)
    return RecordSet(_bare(one["Name"]), kind, values, int(one.get("TTL", 300)), plain, written)


def _value(kind: str, value: str) -> str:
    return unquoted(value, octal=True) if kind == "TXT" else value.rstrip(".") if kind in ("CNAME", "MX") else value


def _bare(name: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), name).rstrip(".")


def _short(zone_id: str) -> str:
    return zone_id.rpartition("/")[2]


def _within(domain: str, zone: str) -> bool:
    return domain == zone or domain.endswith(f".{zone}")
