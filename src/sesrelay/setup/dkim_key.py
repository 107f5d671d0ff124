"""A DKIM key of one's own: written once and for all, and from its file to what SES and the DNS want of it.

Invariant: the private key stands in no error.

Source: SES developer guide, "BYODKIM" (RSA of 1024 to 2048 bits; the PEM file's base64 without its first and last line).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sesrelay.aws.identities import OwnKey
from sesrelay.setup.files import NewFile, write_new

PUBLIC_MAX = 294  # octets of the public half of an RSA key of 2048 bits, as the record has it (RFC 6376 §3.6.1)
_FRAME = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


def own_key(selector: str, file: Path) -> OwnKey:
    """Return the key as SES takes it. Raises: ValueError, with a text for people"""
    pem, _ = _read(file)
    found = _FRAME.search(pem)
    if "." in selector or found is None:
        raise ValueError(f"{selector}: SES accepts only selectors of one label" if found else f"{file} is not a PEM file")
    return OwnKey(selector, b"".join(found[1].split()).decode("ascii"))


def dkim_record(file: Path) -> str:
    """Return the text of the TXT record for the key. Raises: ValueError, with a text for people"""
    return _read(file)[1]


def write_key(file: Path, pem: bytes, config: Path) -> None:
    """Write a new key, owned as the configuration is, or as its folder where there is none yet. Raises: FileExistsError, OSError"""
    write_new(NewFile(file, pem.decode("ascii"), config if config.exists() else config.parent))


def _read(file: Path) -> tuple[bytes, str]:
    """Return the file and the record of its public half."""
    from sesrelay.config.dkim_keys import parse  # noqa: PLC0415 - cryptography costs 60 ms
    from sesrelay.config.private import read_private  # noqa: PLC0415
    from sesrelay.mail.dkim import record  # noqa: PLC0415

    data = read_private(file, os.environ)
    if isinstance(data, str):
        raise ValueError(data)
    try:
        key = parse(data)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None
    if key.algorithm != "rsa-sha256" or len(key.public) > PUBLIC_MAX:
        raise ValueError(f"{file} has a key that SES does not accept (use RSA of 1024 to 2048 bits)")
    return data, record(key.algorithm, key.public)
