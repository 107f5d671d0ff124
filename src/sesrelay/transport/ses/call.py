"""One SendRawEmail request as the bytes of its form, and the headers that sign it.

Source: Amazon SES API reference 2010-12-01, SendRawEmail.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from urllib.parse import quote

from sesrelay.transport.ses.seam import Credentials, SesOptions
from sesrelay.transport.ses.sign import Signer

RAW_MAX = 10_485_760  # octets of one message, as the error text of SES has it
RECIPIENTS_MAX = 50  # destinations of one call
OFF_LOOP = 128 * 1024  # octets from which encoding and hashing take longer than a hop to a thread
_COMMON = re.compile(r"[A-Za-z0-9_.~@-]*\Z")


async def encoded(raw: bytes) -> bytes:
    """Return `raw` as the value of RawMessage.Data: base64, percent-encoded."""
    return await asyncio.to_thread(_encode, raw) if len(raw) > OFF_LOOP else _encode(raw)


def fixed_part(options: SesOptions) -> bytes:
    """Return what is the same in each call of a transport."""
    pairs = [("Action", "SendRawEmail"), ("Version", "2010-12-01")]
    named = {
        "ConfigurationSetName": options.configuration_set,
        "SourceArn": options.source_arn,
        "FromArn": options.from_arn,
        "ReturnPathArn": options.return_path_arn,
    }
    pairs += [(name, value) for name, value in named.items() if value]
    return _form(pairs)


def form(fixed: bytes, source: str, destinations: Iterable[str], tags: Mapping[str, str], data: bytes) -> bytes:
    """Return the body of one call; `data` is what `encoded` made of the message."""
    pairs = [("Source", source)]
    pairs += [(f"Destinations.member.{n}", address) for n, address in enumerate(destinations, 1)]
    for n, (name, value) in enumerate(tags.items(), 1):
        pairs += [(f"Tags.member.{n}.Name", name), (f"Tags.member.{n}.Value", value)]
    return b"%b&%b&RawMessage.Data=%b" % (fixed, _form(pairs), data)


async def signed(signer: Signer, body: bytes, credentials: Credentials, now: float) -> dict[str, str]:
    """Return the headers of a request with `body`."""
    digest = await asyncio.to_thread(_digest, body) if len(body) > OFF_LOOP else _digest(body)
    return signer.headers(digest, credentials, now)


def _encode(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def _form(pairs: Iterable[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={_quoted(value)}" for name, value in pairs).encode("ascii")


def _quoted(value: str) -> str:
    if _COMMON.match(value):  # nearly every address: ten times as quick
        return value.replace("@", "%40")
    return quote(value, safe="-_.~")
