"""DKIM keys as files: readable, nobody else's to read, and of a kind that signs; and new ones.

Invariant: no text made here holds any part of a private key.

Source: RFC 6376 §3.3.3 and RFC 8301 §3.2 (RSA from 1024 bits on), RFC 8463 §3, §4 (Ed25519: the hash is what is signed; the
record holds the bare key).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sesrelay.config.private import read_private
from sesrelay.mail.dkim import Algorithm

Kind = Literal["rsa", "ed25519"]
RSA_MIN = 1024  # bits; less is not verified by anybody (RFC 8301)
RSA_BITS = 2048  # what every DNS panel can hold and every verifier takes
_SEED = 32  # octets of an Ed25519 key in dkimpy's form: the seed alone, in base64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`sign` hashes and signs its argument; `public` is what the record's `p=` holds, before base64."""

    algorithm: Algorithm
    public: bytes
    sign: Callable[[bytes], bytes] = field(repr=False)


def read_key(file: Path, environ: Mapping[str, str]) -> SigningKey:
    """Read a key's file. Raises: ValueError, with a text for people."""
    data = read_private(file, environ)
    if isinstance(data, str):
        raise ValueError(data)
    try:
        return parse(data)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None


def parse(data: bytes) -> SigningKey:
    """Read a key: PEM, or the base64 of an Ed25519 seed. Raises: ValueError, with what is wrong with the file."""
    seed = _seed(data)
    if seed is not None:
        return _ed25519(Ed25519PrivateKey.from_private_bytes(seed))
    try:
        # OpenSSL would take 37 ms to check that the factors of an RSA key are prime. `_tried` sees in a hundredth of that
        # whether the key signs.
        key = load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("is protected by a passphrase (use a key without one)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no private key (use PEM, as `sesrelay dkim generate` writes it)") from None
    if isinstance(key, RSAPrivateKey):
        if key.key_size < RSA_MIN:
            raise ValueError(f"holds an RSA key of {key.key_size} bits, which receivers do not accept (use 2048)")
        return _tried(key)
    if isinstance(key, Ed25519PrivateKey):
        return _ed25519(key)
    raise ValueError("holds a key of a type that DKIM does not support (use RSA or Ed25519)")


def generate(kind: Kind) -> tuple[bytes, SigningKey]:
    """Make a key; return it as PEM too."""
    key = generate_private_key(65537, RSA_BITS) if kind == "rsa" else Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, parse(pem)


def _seed(data: bytes) -> bytes | None:
    try:
        seed = base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        return None
    return seed if len(seed) == _SEED else None


def _tried(key: RSAPrivateKey) -> SigningKey:
    made = _rsa(key)
    try:
        key.public_key().verify(made.sign(b"tried"), b"tried", padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        raise ValueError("holds a key that cannot sign: its parts do not belong together") from None
    return made


def _rsa(key: RSAPrivateKey) -> SigningKey:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey("rsa-sha256", public, lambda data: key.sign(data, padding.PKCS1v15(), SHA256()))


def _ed25519(key: Ed25519PrivateKey) -> SigningKey:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return SigningKey("ed25519-sha256", public, lambda data: key.sign(hashlib.sha256(data).digest()))
