"""AWS Signature Version 4 for POST requests of one shape, on a signing key that is kept for the day.

botocore's own signer derives the key anew and canonicalises general requests on each call, which costs more than all
else that sending a small message takes. The tests hold this one equal to botocore's. Where the endpoint spans regions
the signature is the asymmetric one, 4a.

Source: AWS IAM user guide, "Create a signed AWS API request"; for 4a the derivation of its keys as in AWS's own SDKs.
"""

from __future__ import annotations

import hmac
import time
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from sesrelay.transport.ses.seam import Credentials
from sesrelay.transport.ses.target import host_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


class SigV4:
    """Signs requests of one content type to one URL. Raises: ValueError where it is none"""

    def __init__(self, url: str, region: str, service: str, content_type: str) -> None:
        self.host = host_of(url).field
        self.content_type = content_type
        self._start = f"POST\n{quote(urlsplit(url).path or '/', safe='/~')}\n\ncontent-type:{content_type}\nhost:{self.host}\n"
        self._region = region
        self._service = service
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def headers(self, body_sha256: str, credentials: Credentials, now: float) -> dict[str, str]:
        """Return the headers of a signed request. Units: `now` Unix seconds; `body_sha256` in hexadecimal."""
        at = _stamp(int(now))
        headers = {"Content-Type": self.content_type, "Host": self.host, "X-Amz-Date": at}
        signed = "content-type;host;x-amz-date"
        canonical = f"{self._start}x-amz-date:{at}\n"
        for name, value in self._more(credentials):
            headers[name] = value
            signed += f";{name.lower()}"
            canonical += f"{name.lower()}:{value}\n"
        request = sha256(f"{canonical}\n{signed}\n{body_sha256}".encode()).hexdigest()
        algorithm, scope, signature = self._signature(at, request, credentials)
        headers["Authorization"] = (
            f"{algorithm} Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _more(self, credentials: Credentials) -> list[tuple[str, str]]:
        """Return the further headers that are signed, in order of their names."""
        return [("X-Amz-Security-Token", credentials.token)] if credentials.token else []

    def _signature(self, at: str, request: str, credentials: Credentials) -> tuple[str, str, str]:
        scope = f"{at[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{request}"
        key = self._signing_key(at[:8], credentials.secret_key)
        return "AWS4-HMAC-SHA256", scope, hmac.digest(key, text.encode(), "sha256").hex()

    def _signing_key(self, date: str, secret: str) -> bytes:
        if self._key_for != (date, secret):
            key = f"AWS4{secret}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._key_for = key, (date, secret)
        return self._key


@lru_cache(maxsize=4)  # the calls of one second share it
def _stamp(at: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


class SigV4a(SigV4):
    """Signs with SigV4a for a set of regions, as multi-region endpoints want it. `region` is that set: `*`, or names."""

    _pair_for: tuple[str, str] = ("", "")
    _pair: EllipticCurvePrivateKey

    def _more(self, credentials: Credentials) -> list[tuple[str, str]]:
        return [("X-Amz-Region-Set", self._region), *super()._more(credentials)]

    def _signature(self, at: str, request: str, credentials: Credentials) -> tuple[str, str, str]:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415 - only few relays want it
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        scope = f"{at[:8]}/{self._service}/aws4_request"
        text = f"AWS4-ECDSA-P256-SHA256\n{at}\n{scope}\n{request}"
        if self._pair_for != (credentials.access_key, credentials.secret_key):
            self._pair = private_key(credentials.access_key, credentials.secret_key)
            self._pair_for = (credentials.access_key, credentials.secret_key)
        return "AWS4-ECDSA-P256-SHA256", scope, self._pair.sign(text.encode(), ECDSA(SHA256())).hex()


_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's group: FIPS 186-4 D.1.2.3


def private_key(access_key: str, secret: str) -> EllipticCurvePrivateKey:
    """Derive the key pair of SigV4a: NIST SP 800-108 in counter mode, until it gives a number below the curve's order."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key  # noqa: PLC0415

    for counter in range(1, 255):
        context = access_key.encode() + bytes([counter])
        text = b"\0\0\0\1AWS4-ECDSA-P256-SHA256\0" + context + b"\0\0\1\0"
        candidate = int.from_bytes(hmac.digest(f"AWS4A{secret}".encode(), text, "sha256"))
        if candidate <= _ORDER - 2:
            return derive_private_key(candidate + 1, SECP256R1())
    raise ValueError("no key pair can be derived from these credentials")
