"""A DKIM key of one's own: from its PEM file to what SES and the DNS want of it.

Invariant: the private key stands in no error.

Source: RFC 6376 §3.6.1 (the record), RFC 8301 (key sizes); SES developer guide, "BYODKIM".
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from sesrelay.aws.identities import OwnKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

BITS_MIN, BITS_MAX = 1024, 2048  # what SES takes
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")


def own_key(selector: str, pem: bytes) -> OwnKey:
    """Return the key as SES takes it: base64 of its DER form. Raises: ValueError"""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 60 ms

    if not _SELECTOR.match(selector):
        raise ValueError(f"{selector!r} is no selector that SES takes: letters, digits and hyphens, one label")
    der = _private(pem).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return OwnKey(selector, base64.b64encode(der).decode("ascii"))


def dkim_record(pem: bytes) -> str:
    """Return the text of the TXT record at SELECTOR._domainkey. Raises: ValueError"""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    public = _private(pem).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode('ascii')}"


def _private(pem: bytes) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("the key wants a passphrase, which SES cannot be given") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no private key in PEM form is there") from None
    if not isinstance(key, RSAPrivateKey) or not BITS_MIN <= key.key_size <= BITS_MAX:
        raise ValueError(f"SES takes RSA keys of {BITS_MIN} to {BITS_MAX} bits")
    return key
