"""The SMTP password that belongs to a secret access key, and what else people take for one.

Source: Amazon SES developer guide, "Obtaining SES SMTP credentials by converting existing AWS credentials".
"""

from __future__ import annotations

import base64
import binascii
import hmac

from sesrelay.aws.number import is_key_id

VERSION = b"\x04"
LENGTH = 44  # characters of an SMTP password


class NoSecretKey(ValueError):
    """What was given is no long-lived secret access key. The text says what it is, and what is meant; never the value."""


def derive(secret_access_key: str, region: str) -> str:
    """Return the SMTP password of a secret key for one region. It cannot be turned back."""
    key = f"AWS4{secret_access_key}".encode()
    for part in ("11111111", region, "ses", "aws4_request", "SendRawEmail"):
        key = hmac.digest(key, part.encode(), "sha256")
    return base64.b64encode(VERSION + key).decode("ascii")


def is_smtp_password(text: str) -> bool:
    """Tell whether the text has the shape of an SES SMTP password: 33 octets in base64, the first of them the version."""
    if len(text) != LENGTH:
        return False
    try:
        return base64.b64decode(text, validate=True)[:1] == VERSION
    except binascii.Error:
        return False


def read_secret(text: str, session_secret: str | None = None) -> str:
    """Return the secret key in what somebody typed or piped. Raises: NoSecretKey

    `session_secret`: the secret of temporary credentials that are known, as those in the environment.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("session_token" in line.lower() or "sessiontoken" in line.lower() for line in lines):
        raise NoSecretKey(_TEMPORARY)
    if len(lines) != 1:
        raise NoSecretKey("give one line with the secret access key and nothing else" if lines else "stdin is empty")
    secret = lines[0]
    if is_key_id(secret):
        temporary = secret.startswith("ASIA")
        raise NoSecretKey(_TEMPORARY if temporary else "this is an access key ID; give its secret access key")
    if is_smtp_password(secret):
        raise NoSecretKey("this is already an SMTP password, derived from a secret access key for one region")
    if len(secret) > 128:
        raise NoSecretKey(_TEMPORARY)
    if secret == session_secret:
        raise NoSecretKey(_TEMPORARY)
    if not secret.isascii() or any(character.isspace() for character in secret):
        raise NoSecretKey("a secret access key has only ASCII characters and no spaces")
    return secret


_TEMPORARY = (
    "these are temporary credentials (a session token, or a key ID that begins with ASIA); they cannot be converted to an "
    "SMTP password; use the key of an IAM user: sesrelay credentials create"
)
