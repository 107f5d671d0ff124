"""Certificates and private keys as files: readable, nobody else's to read, a pair, and of today.

Invariant: what is accepted here can serve; the listener loads the same files again.

Source: RFC 5280 §4.1.2.5 (validity), X.690 (DER).
"""

from __future__ import annotations

import datetime
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path

from sesrelay.config.private import exposed, read_regular

_PEM = b"-----BEGIN "
_CERTIFICATE = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_PEM_MAX = 1024 * 1024  # octets; a chain has a few KiB
_CONSTRUCTED_0, _UTC_TIME = 0xA0, 0x17


class _Encrypted(Exception):
    """The key wants a passphrase."""


def wrong_with_certificate(file: Path, now: float | None) -> str | None:
    """Return what is wrong with a certificate, or None. Units: `now` Unix seconds; None: its dates do not matter."""
    data = _read(file)
    if isinstance(data, str):
        return data
    text = data[0].decode("latin-1")
    begin, end = (text.find(mark) for mark in _CERTIFICATE)
    try:
        first, last = validity(ssl.PEM_cert_to_DER_cert(text[begin : end + len(_CERTIFICATE[1])]))
    except (ValueError, IndexError):
        return f"{file} holds no certificate (use PEM: first the server's own certificate, then its chain)"
    if now is not None and now > last:
        return f"the certificate in {file} expired on {_day(last)} (renew it)"
    if now is not None and now < first:
        return f"the certificate in {file} is not valid before {_day(first)}"
    return None


def wrong_with_key(file: Path, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with a private key's file, or None."""
    data = _read(file)
    if isinstance(data, str):
        return data
    if exposed(file, data[1], environ):
        return f"other users can access the key in {file}, mode {stat.S_IMODE(data[1]):04o} (chmod o-rwx {file})"
    if b"PRIVATE KEY-----" not in data[0]:
        return f"{file} holds no private key (use PEM)"
    return None


def wrong_with_pair(certificate: Path, key: Path) -> str | None:
    """Return why a certificate and a key, each well by itself, cannot serve together, or None."""

    def passphrase() -> str:
        raise _Encrypted

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, passphrase)
    except _Encrypted:
        return f"the key in {key} is protected by a passphrase (remove it: openssl pkey -in {key} -out NEW)"
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key} does not belong to the certificate in {certificate}"
        return f"{certificate} and {key} cannot be used: {(error.reason or 'no PEM').lower().replace('_', ' ')}"
    except OSError as error:
        return f"{certificate} and {key} cannot be used: {error.strerror}"
    return None


def wrong_with_issuers(file: Path) -> str | None:
    """Return why the certificates in a file cannot be those of trusted issuers, or None."""
    try:
        read_regular(file, 0)  # OpenSSL would wait for somebody to write to a FIFO
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return f"{file} holds no certificate (use PEM with the certificates of the issuers to trust)"
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    return None


def validity(der: bytes) -> tuple[float, float]:
    """Return from when until when a certificate is valid. Units: Unix seconds. Raises: ValueError, IndexError"""
    certificate, _ = _element(der, 0)
    at, _ = _element(der, certificate)
    if der[at] == _CONSTRUCTED_0:  # the version, which version 1 leaves out
        at = _element(der, at)[1]
    for _ in ("serial number", "signature", "issuer"):
        at = _element(der, at)[1]
    first, _ = _element(der, at)
    return _time(der, first), _time(der, _element(der, first)[1])


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at `at` begins, and where it ends."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin])
    if begin + length > len(der):
        raise ValueError("no DER")
    return begin, begin + length


def _time(der: bytes, at: int) -> float:
    begin, end = _element(der, at)
    text = der[begin:end].decode("ascii")
    if der[at] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat()


def _read(file: Path) -> tuple[bytes, int] | str:
    """Return content and mode, or what is wrong."""
    try:
        data, mode = read_regular(file, _PEM_MAX)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    if len(data) > _PEM_MAX or _PEM not in data:
        return f"{file} is not a PEM file"
    return data, mode
