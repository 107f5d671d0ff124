"""API v2 of the stand-in: SendEmail with raw content, in the words in which v2 says what v1 says otherwise.

Source: Amazon SES API v2 reference, SendEmail; AWS REST-JSON protocol (the error's name stands in x-amzn-ErrorType).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sesrelay.testing.ses_rules import Refusal

PATH = "/v2/email/outbound-emails"
SIZE_MAX = 41_943_040  # octets of one message
# What v1 calls otherwise, with the status of v2; a 4xx of v1 that is none of these is a BadRequestException.
_NAMES = {
    "Throttling": ("TooManyRequestsException", 429),
    "ConfigurationSetDoesNotExist": ("NotFoundException", 404),
    "ConfigurationSetSendingPausedException": ("SendingPausedException", 400),
    "InvalidParameterValue": ("BadRequestException", 400),
    "InternalFailure": ("InternalServiceErrorException", 500),
}


def read(body: bytes) -> tuple[str, tuple[str, ...], bytes, dict[str, str], dict[str, Any]]:
    """Return source, destinations, raw message, tags and all other members of a SendEmail. Raises: Refusal"""
    try:
        document = json.loads(body)
        raw = base64.b64decode(document.pop("Content")["Raw"]["Data"], validate=True)
        to = document.pop("Destination", {})
        tags = {tag["Name"]: tag["Value"] for tag in document.pop("EmailTags", [])}
        destinations = tuple(address for name in ("ToAddresses", "CcAddresses", "BccAddresses") for address in to.get(name, ()))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise Refusal("SerializationException", "The request is no SendEmail with raw content") from None
    return document.pop("FromEmailAddress", ""), destinations, raw, tags, document


def accepted(message_id: str) -> web.Response:
    return web.json_response({"MessageId": message_id} if message_id else {})


def refused(code: str, text: str, status: int, names: Mapping[str, tuple[str, int]] = _NAMES) -> web.Response:
    name, its_status = names.get(code, (code, status))
    return web.json_response({"message": text}, status=its_status, headers={"x-amzn-ErrorType": name})
