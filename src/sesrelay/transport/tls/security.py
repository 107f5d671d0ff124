"""What TLS a connection must have before mail goes over it, and what was wrong where it had not.

Invariant: `otherwise` is the only way to less than was asked for, and only what was asked for weakly has one.

Source: RFC 7435 (opportunistic), RFC 7672 §2.2 (DANE), RFC 8461 §4.2 (MTA-STS), RFC 8460 §4.3 (names of faults).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal, Protocol

Tls = Literal["none", "opportunistic", "required", "implicit"]


class Fault(IntEnum):
    """What RFC 8460 §4.3 tells apart, by the numbers of libtlsrpt."""

    STARTTLS_NOT_SUPPORTED = 201
    CERTIFICATE_HOST_MISMATCH = 202
    CERTIFICATE_NOT_TRUSTED = 203
    CERTIFICATE_EXPIRED = 204
    VALIDATION_FAILURE = 205
    STS_POLICY_FETCH_ERROR = 301
    STS_POLICY_INVALID = 302
    STS_WEBPKI_INVALID = 303
    TLSA_INVALID = 304
    DNSSEC_INVALID = 305


class NotProven(Exception):
    """The handshake went well, but the host is not shown to be the one that is meant. The text says why, for a person."""


class Proof(Protocol):
    """Looks at a finished handshake. Hashable: equal proofs ask for the same."""

    def __call__(self, tls: ssl.SSLObject) -> None:
        """Raises: NotProven."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one connection went, to `host` at `address`. `fault` None: as it should; `text` is for people; `local` is our address."""

    host: str
    address: str
    fault: Fault | None = None
    text: str = ""
    local: str = ""


class Witness(Protocol):
    """Told of every handshake, for reports. Hashable; never waits, never raises."""

    def __call__(self, finding: Finding) -> None: ...


@dataclass(frozen=True, slots=True)
class Security:
    """What to ask for. Equal ones ask for the same, so that they may share connections.

    `name` is what goes into SNI and what `context` verifies, where it verifies; None: the host's. `proof` looks at the handshake
    afterwards. `label` says in `trace` what was met. `otherwise`: what is tried on another connection where this fails.
    """

    tls: Tls
    context: ssl.SSLContext | None = field(default=None, repr=False)
    name: str | None = None
    proof: Proof | None = None
    label: str = ""
    otherwise: Security | None = None
    witness: Witness | None = field(default=None, repr=False)


CLEAR = Security("none")


def security(tls: Tls, ca_file: Path | None = None) -> Security:
    """Return one of the plain kinds: verified for `required` and `implicit`, not for `opportunistic`.

    Raises: OSError, ssl.SSLError where `ca_file` cannot be used.
    """
    if tls == "none":
        return CLEAR
    if tls == "opportunistic":
        # Whoever could forge a certificate here could as well strip STARTTLS: clear text is the alternative (RFC 7435).
        return Security(tls, unverified(old=True), otherwise=CLEAR)
    return Security(tls, ssl.create_default_context(cafile=str(ca_file) if ca_file else None), label="verified")


def unverified(*, old: bool = False) -> ssl.SSLContext:
    """Return a context that takes any certificate. `old`: and what passes for broken now, as Postfix does; clear text is worse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if old:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


# OpenSSL's X509_V_ERR_*: x509_vfy.h
_EXPIRED = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 64})


def fault_of(error: BaseException) -> Fault:
    """Return how RFC 8460 calls what is at the bottom of `error`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotProven):
            return Fault.VALIDATION_FAILURE
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _OTHER_NAME:
                return Fault.CERTIFICATE_HOST_MISMATCH
            return Fault.CERTIFICATE_EXPIRED if cause.verify_code in _EXPIRED else Fault.CERTIFICATE_NOT_TRUSTED
        cause = cause.__cause__
    return Fault.VALIDATION_FAILURE
