"""Checking AWS Signature Version 4 as the service does, from the request as it came.

Source: AWS IAM user guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, unquote_plus

from sesrelay.testing.ses_rules import Refusal

SKEW = 15 * 60  # seconds
SERVICE = "ses"  # of both APIs
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})\Z"
)


class SignatureError(Refusal):
    """The request is not from whom it says that it is."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text, 403)


def check(
    method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, keys: Mapping[str, str], now: float, here: str
) -> str:
    """Return the access key that signed the request for SES in the region `here`.

    Raises: SignatureError. Units: `now` Unix seconds.
    """
    found = _AUTHORIZATION.match(headers.get("Authorization", ""))
    if found is None:
        raise SignatureError("MissingAuthenticationToken", "Request is missing Authentication Token")
    key, date, region, service, signed, signature = found.groups()
    if key not in keys:
        raise SignatureError("InvalidClientTokenId", "The security token included in the request is invalid.")
    if region != here:
        raise SignatureError("SignatureDoesNotMatch", f"Credential should be scoped to a valid region, not '{region}'.")
    if service != SERVICE:
        raise SignatureError("SignatureDoesNotMatch", f"Credential should be scoped to correct service: '{SERVICE}'.")
    at = headers.get("X-Amz-Date", "")
    names = signed.split(";")
    canonical_headers = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names)
    digest = sha256(body).hexdigest()
    canonical = f"{method}\n{quote(path, safe='/~')}\n{_canonical_query(query)}\n{canonical_headers}\n{signed}\n{digest}"
    scope = f"{date}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    secret = f"AWS4{keys[key]}".encode()
    for part in (date, region, service, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    if "host" not in names or not hmac.compare_digest(hmac.digest(secret, text.encode(), "sha256").hex(), signature):
        raise SignatureError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
            "and signing method. Consult the service documentation for details.",
        )
    _check_date(at, now)
    return key


def _check_date(at: str, now: float) -> None:
    signed_at = datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    here = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    if signed_at < now - SKEW:
        raise SignatureError("SignatureDoesNotMatch", f"Signature expired: {at} is now earlier than {here} - 15 min.")
    if signed_at > now + SKEW:
        raise SignatureError("SignatureDoesNotMatch", f"Signature not yet current: {at} is still later than {here} + 15 min.")


def _canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(sorted(f"{quote(unquote_plus(k), safe='-_.~')}={quote(unquote_plus(v), safe='-_.~')}" for k, _, v in pairs))
