"""The number of the AWS account that credentials belong to, without asking anybody.

It tells that two transports draw on one quota, and nothing more hangs on it: what cannot be told is taken for an account
of its own.

Source: AWS, ARN format; the account stands in the key ids that IAM and STS have given since 2019 (as sts:GetAccessKeyInfo
tells), behind four letters in base 32.
"""

from __future__ import annotations

import base64
import binascii
import re

_ARN = re.compile(r"arn:[a-z-]+:iam::(\d{12}):")
_KEY_ID = re.compile(r"(?:AKIA|ASIA)[A-Z2-7]{16}\Z")
_EARLIER = "IJ"  # begin ids of before, behind the four letters, which tell nothing


def of_arn(arn: str | None) -> str | None:
    """Return the account in the ARN of a role or user."""
    found = _ARN.match(arn or "")
    return found[1] if found else None


def is_key_id(text: str) -> bool:
    """Tell whether the text has the shape of an access key's id: of one that lasts, or (ASIA) of temporary credentials."""
    return bool(_KEY_ID.match(text))


def of_key(access_key_id: str | None) -> str | None:
    """Return the account of an access key's id, also where it is the user name of SES by SMTP."""
    if not access_key_id or not is_key_id(access_key_id) or access_key_id[4] in _EARLIER:
        return None
    try:
        bits = int.from_bytes(base64.b32decode(access_key_id[4:])[:6])
    except binascii.Error:
        return None
    return f"{(bits & 0x7FFFFFFFFF80) >> 7:012d}"
