"""A zone at Cloudflare, over its REST API.

Invariant: the token goes to the API only, in a header, and stands in no error; records are never proxied.

Source: Cloudflare API v4, zones, dns_records, dns_records/batch.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any

from sesrelay.mail.address import parents
from sesrelay.setup.zones.formats import quoted, unquoted
from sesrelay.setup.zones.plan import Change, RecordSet, ZoneError

API = "https://api.cloudflare.com/client/v4"
TIMEOUT = 30  # seconds
AUTOMATIC = 1  # the TTL that Cloudflare writes for "automatic"
PER_PAGE = 100


class CloudflareApi:
    """Calls with one token. Blocks. Raises: ZoneError"""

    def __init__(self, token: str, url: str = API) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ZoneError(f"{url} would send the token in clear text: use an https:// URL")
        self._token = token
        self._url = url.rstrip("/")

    def call(self, method: str, path: str, query: dict[str, str] | None = None, body: Any = None) -> Any:
        """Return the `result` of a call, of one page."""
        url = f"{self._url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - __init__ looks at the scheme
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise ZoneError(f"Cloudflare refused {method} {path}: {_said(error)}") from None
        except (OSError, ValueError) as error:
            raise ZoneError(f"Cloudflare cannot be reached ({method} {path}): {error}") from None
        if not isinstance(answer, dict) or not answer.get("success"):
            raise ZoneError(f"Cloudflare refused {method} {path}: {_errors(answer)}")
        return answer["result"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token elsewhere: it counts as a refusal."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


class CloudflareZone:
    """The zone that holds a domain. Implements `plan.Zone`."""

    def __init__(self, api: CloudflareApi, zone_id: str, name: str) -> None:
        self._api = api
        self._id = zone_id
        self._name = name

    @property
    def name(self) -> str:
        return f"{self._name} at Cloudflare"

    @classmethod
    def find(cls, api: CloudflareApi, domain: str) -> CloudflareZone:
        """Return the zone whose name is the longest end of the domain's. Raises: ZoneError"""
        for name in (domain, *parents(domain)):
            zones = [zone for zone in api.call("GET", "/zones", {"name": name}) if zone["name"].lower() == name]
            if len(zones) > 1:
                raise ZoneError(f"the token has access to several zones named {name}: limit it to one")
            if zones:
                return cls(api, zones[0]["id"], name)
        raise ZoneError(f"the token has access to no zone that contains {domain}; it needs Zone:Read and DNS:Edit there")

    def present(self, names: Iterable[str]) -> list[RecordSet]:
        sets: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for name in dict.fromkeys(name.lower() for name in names):
            query = {"name": name, "per_page": str(PER_PAGE)}
            for one in self._api.call("GET", f"/zones/{self._id}/dns_records", query):
                if one["name"].lower() == name:
                    sets.setdefault((name, one["type"]), []).append(one)
        return [
            RecordSet(
                name, kind, tuple(_value(one) for one in ones), ones[0].get("ttl", AUTOMATIC),
                not any(one.get("proxied") for one in ones), tuple(one["id"] for one in ones),
            )
            for (name, kind), ones in sets.items()
        ]  # fmt: skip

    def apply(self, changes: Sequence[Change]) -> None:
        deletes: list[dict[str, str]] = []
        posts: list[dict[str, Any]] = []
        for change in changes:
            if change.action not in ("create", "update"):
                continue
            gone = [(value, one) for value, one in _values(change.old) if value not in change.after]
            deletes += [{"id": one} for _, one in gone]
            deletes += [{"id": one} for other in change.removes for one in other.ids]
            there = change.old.values if change.old else ()
            posts += [_record(change, value) for value in change.after if value not in there]
        if deletes or posts:
            # One call, which Cloudflare does as a whole or not at all.
            self._api.call("POST", f"/zones/{self._id}/dns_records/batch", body={"deletes": deletes, "posts": posts})


def _values(old: RecordSet | None) -> list[tuple[str, str]]:
    return list(zip(old.values, old.ids, strict=True)) if old else []


def _record(change: Change, value: str) -> dict[str, Any]:
    record: dict[str, Any] = {"type": change.type, "name": change.name, "ttl": change.ttl, "comment": "sesrelay"}
    if change.type == "MX":
        preference, _, host = value.partition(" ")
        return record | {"priority": int(preference), "content": host}
    if change.type == "TXT":
        return record | {"content": quoted(value)}
    return record | {"content": value, "proxied": False}


def _value(one: dict[str, Any]) -> str:
    content = str(one["content"])
    if one["type"] == "TXT":
        return unquoted(content)
    return f"{one.get('priority', 0)} {content.rstrip('.')}" if one["type"] == "MX" else content.rstrip(".")


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return f"{error.code}: {_errors(json.load(error))}"
    except (OSError, ValueError):
        return f"{error.code} {error.reason}"


def _errors(answer: Any) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return "; ".join(f"{one.get('message')} ({one.get('code')})" for one in errors or ()) or "no reason given"
