"""TLS for sessions: the context of a listener, and what a session says of itself.

Invariant: nothing older than TLS 1.2 is spoken, nothing is renegotiated, no ticket outlives the process.

Source: RFC 8314 §3.2, RFC 9325.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class CertificateError(ValueError):
    """A certificate and its key cannot be used; the text names the files."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that serves this certificate. Raises: CertificateError"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # An empty passphrase: the default would be a question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise CertificateError(f"{certificate} and {key} cannot serve TLS: {reason(error)}") from error
    return context


def described(connection: ssl.SSLObject) -> str:
    """Return version and cipher, as in `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
    cipher = connection.cipher()
    return f"{connection.version()} {cipher[0] if cipher else '?'}"


def reason(error: BaseException | None) -> str:
    """Say in a few words why a handshake or a certificate failed."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # What the loops raise at the deadline of a handshake.
    return "not done in time" if isinstance(error, ConnectionAbortedError) else "the client closed the connection"
