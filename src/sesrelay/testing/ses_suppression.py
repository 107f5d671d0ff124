"""The stand-in's account-level suppression list: SES v2 as REST.

Source: Amazon SES API v2 reference, PutSuppressedDestination and its kin.
"""

from __future__ import annotations

import json
from typing import Any

from multidict import MultiMapping

from sesrelay.testing.ses_rules import Account, Refusal

REASONS = ("BOUNCE", "COMPLAINT")


def handle(account: Account, method: str, path: str, query: MultiMapping[str], body: bytes) -> dict[str, Any]:
    """Answer a call below /v2/email/suppression. Raises: Refusal"""
    match method, path.strip("/").split("/"):
        case "PUT", ["addresses"]:
            return _put(account, body)
        case "GET", ["addresses"]:
            return _list(account, query)
        case "GET", ["addresses", address]:
            return {"SuppressedDestination": _document(account, _find(account, address))}
        case "DELETE", ["addresses", address]:
            del account.suppressed[_find(account, address)]
            return {}
    raise Refusal("UnknownOperationException", f"{method} {path}", 404)


def _put(account: Account, body: bytes) -> dict[str, Any]:
    try:
        wanted = json.loads(body)
        address, reason = str(wanted["EmailAddress"]).lower(), wanted["Reason"]
    except (ValueError, KeyError, TypeError):
        raise Refusal("SerializationException", "EmailAddress and Reason are wanted") from None
    if reason not in REASONS:
        raise Refusal("BadRequestException", "1 validation error detected: Value at 'reason' failed to satisfy constraint")
    if "@" not in address:
        raise Refusal("BadRequestException", f"Invalid email address {address}.")
    account.suppressed[address] = (reason, account.wall())
    return {}


def _list(account: Account, query: MultiMapping[str]) -> dict[str, Any]:
    reasons = query.getall("Reason", REASONS)
    names = [address for address, (reason, _) in sorted(account.suppressed.items()) if reason in reasons]
    start, size = int(query.get("NextToken") or 0), int(query.get("PageSize") or 1000)
    told: dict[str, Any] = {"SuppressedDestinationSummaries": [_document(account, name) for name in names[start : start + size]]}
    if start + size < len(names):
        told["NextToken"] = str(start + size)
    return told


def _document(account: Account, address: str) -> dict[str, Any]:
    reason, at = account.suppressed[address]
    return {"EmailAddress": address, "Reason": reason, "LastUpdateTime": at}


def _find(account: Account, address: str) -> str:
    if address.lower() not in account.suppressed:
        raise Refusal("NotFoundException", f"Email address {address} does not exist on your suppression list.", 404)
    return address.lower()
