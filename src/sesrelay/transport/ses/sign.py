"""AWS Signature Version 4 for form-encoded POST requests, on a signing key that is kept for the day.

botocore's own signer derives the key anew and canonicalises general requests on each call, which costs more than all
else that sending a small message takes. The tests hold this one equal to botocore's.

Source: AWS IAM user guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from urllib.parse import quote, urlsplit

from sesrelay.transport.ses.seam import Credentials, Endpoint

CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
_DEFAULT_PORT = {"http": 80, "https": 443}


class Signer:
    """Signs requests for one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        parts = urlsplit(endpoint.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        standard = parts.port is None or parts.port == _DEFAULT_PORT.get(parts.scheme)
        self.host = host if standard else f"{host}:{parts.port}"
        self._path = quote(parts.path or "/", safe="/~")
        self._region = endpoint.region
        self._service = endpoint.service
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def headers(self, body_sha256: str, credentials: Credentials, now: float) -> dict[str, str]:
        """Return the headers of a signed request. Units: `now` Unix seconds; `body_sha256` in hexadecimal."""
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"Content-Type": CONTENT_TYPE, "Host": self.host, "X-Amz-Date": at}
        signed = "content-type;host;x-amz-date"
        canonical = f"POST\n{self._path}\n\ncontent-type:{CONTENT_TYPE}\nhost:{self.host}\nx-amz-date:{at}\n"
        if credentials.token:
            headers["X-Amz-Security-Token"] = credentials.token
            signed += ";x-amz-security-token"
            canonical += f"x-amz-security-token:{credentials.token}\n"
        canonical += f"\n{signed}\n{body_sha256}"
        scope = f"{at[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(at[:8], credentials.secret_key), text.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _signing_key(self, date: str, secret: str) -> bytes:
        if self._key_for != (date, secret):
            key = f"AWS4{secret}".encode()
            for part in (date, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._key_for = key, (date, secret)
        return self._key
