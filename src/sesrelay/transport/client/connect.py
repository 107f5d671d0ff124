"""Opening a connection to an SMTP host: greeting, EHLO, TLS, login; and reading what aiosmtplib makes of the replies.

Invariant: `required` and `implicit` never fall back to clear text; `opportunistic` does, on a new connection.
Invariant: what a host says, or an error repeats of it, goes through `parse_reply` before anybody reads it.
Invariant: a password goes out only under TLS or to a loopback address, and stands in no text made here.

Source: RFC 5321 §3.1, §4.5.3.2 (timeouts), RFC 3207, RFC 8314 §3 (implicit TLS), RFC 4954.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import cast

import aiosmtplib
from aiosmtplib import SMTPException, SMTPHeloError, SMTPResponseException

from sesrelay.mail.outcome import PauseReason, Trail
from sesrelay.mail.reply import Reply
from sesrelay.transport.client.answers import Answer, Stage
from sesrelay.transport.net.plainly import plainly
from sesrelay.transport.net.reach import Unreachable, reach, resolve
from sesrelay.transport.tls.security import Fault, Finding, NotProven, Security, fault_of

_REPEATED_STATUS = re.compile(r"\n[245]\.\d{1,3}\.\d{1,3}[ \t]+")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Units: seconds. `connect`: for each address; `block`: for each piece of content to leave; `final`: for the answer to the
    final dot.
    """

    connect: float = 30.0
    command: float = 300.0
    block: float = 180.0
    final: float = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """Where to connect and how. `name` is what people read, and what TLS verifies unless `security` has another; `address` what
    is connected to. `fingerprints`: SHA-256 of the certificates that are taken, instead of any other verification.
    `token`: returns the access token for XOAUTH2; raises OSError, ValueError. `look_up`: returns the addresses of a name,
    where the system is not to be asked; raises OSError.

    Each one is its own key: what connections are kept by must not compare passwords.
    """

    name: str
    port: int
    address: str
    security: Security
    local_hostname: str
    source_address: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: Callable[[], str] | None = field(default=None, repr=False)
    fingerprints: frozenset[str] = frozenset()
    look_up: Callable[[str], Awaitable[list[str]]] | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


class Unreached(Exception):
    """No transaction could be begun there; `answer` says why."""

    def __init__(self, answer: Answer, tls: str | None = None, fault: Fault | None = None) -> None:
        super().__init__(str(answer.reply))
        self.answer = answer
        self.fault = fault
        self.trail = Trail(tls)


class _Client(aiosmtplib.SMTP):
    AUTH_METHODS = ("plain", "login", "cram-md5")


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that waits for MAIL. `transport` None: it went away meanwhile. `extensions`: EHLO's, in lower case."""

    transport: asyncio.Transport | None
    extensions: Mapping[str, str]
    tls: str | None


async def open_connection(endpoint: Endpoint, sock: socket.socket | None = None) -> Opened:
    """Connect, unless `sock` is connected already, say EHLO, secure and log in. Raises: Unreached."""
    security = endpoint.security
    while True:
        sock = sock or await _connect(endpoint)
        local = str(sock.getsockname()[0])
        try:
            client = await _open(endpoint, security, sock)
            break
        except Unreached as error:
            if error.answer.stage is not Stage.TLS:
                raise
            _tell(endpoint, security, local, error.fault or fault_of(error), error.answer.reply.text)
            if security.otherwise is None:
                raise
            security, sock = security.otherwise, None
    tls = tls_of(client)
    if security.tls != "none" and client.is_connected:
        _tell(endpoint, security, local, None if tls else Fault.STARTTLS_NOT_SUPPORTED)
    # No isinstance: uvloop's transports are no subclasses of asyncio's. After STARTTLS this is the one that encrypts.
    transport = cast("asyncio.Transport | None", client.transport)
    return Opened(transport, dict(client.esmtp_extensions), f"{tls} ({security.label})" if tls and security.label else tls)


def _tell(endpoint: Endpoint, security: Security, local: str, fault: Fault | None, text: str = "") -> None:
    if security.witness is not None:
        security.witness(Finding(endpoint.name, endpoint.address, fault, text, local))


async def _open(endpoint: Endpoint, security: Security, sock: socket.socket) -> aiosmtplib.SMTP:
    client = await _greeted(endpoint, security, sock)
    try:
        await _hello(client, endpoint)
        if security.tls in ("opportunistic", "required"):
            await _start_tls(client, endpoint, security)
        if endpoint.username is not None:
            await _log_in(client, endpoint)
    except BaseException:
        client.close()
        raise
    return client


async def _connect(endpoint: Endpoint) -> socket.socket:
    """Return a connected socket. Raises: Unreached."""
    source = endpoint.source_address
    try:
        if _is_ip(endpoint.address):
            addresses = [endpoint.address]
        elif endpoint.look_up is not None:
            addresses = await endpoint.look_up(endpoint.address)
        else:
            addresses = await resolve(endpoint.address, endpoint.port, source)
        return (await reach(addresses, endpoint.port, source=source, timeout=endpoint.timeouts.connect)).sock
    except (Unreachable, OSError) as error:
        raise cannot_connect(endpoint, _in_short(error)) from error


async def _greeted(endpoint: Endpoint, security: Security, sock: socket.socket) -> aiosmtplib.SMTP:
    """Wait for the greeting, under TLS where that comes first. Raises: Unreached."""
    implicit = security.tls == "implicit"
    client = _Client(
        hostname=(security.name or endpoint.name) if implicit else None,
        sock=sock,
        local_hostname=endpoint.local_hostname,
        timeout=endpoint.timeouts.command,
        use_tls=implicit,
        start_tls=False,
        tls_context=security.context if implicit else None,
    )
    try:
        await client.connect()
    except SMTPResponseException as error:  # a greeting that is not 220
        raise Unreached(_spoken(Stage.GREETING, error.code, error.message, endpoint)) from error
    except (SMTPException, OSError, ValueError) as error:
        tls_error = _tls_error(error)
        if tls_error is not None:
            raise Unreached(_tls_answer(endpoint, tls_error)) from error
        raise _not_there(f"4.4.2 {endpoint.name} port {endpoint.port} did not send a greeting: {_in_short(error)}") from error
    if implicit:
        _check_fingerprint(client, endpoint)
    return client


def cannot_connect(endpoint: Endpoint, why: str) -> Unreached:
    """Return what to raise where no connection came about."""
    return _not_there(f"4.4.1 cannot connect to {endpoint.name} port {endpoint.port}: {why}")


def _not_there(text: str) -> Unreached:
    return Unreached(Answer(Stage.CONNECT, parse_reply(451, text), lost=True))


async def _hello(client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
    """Say EHLO; say HELO where the host refuses EHLO, whatever its words for that are (RFC 1869 §4.4, §4.5)."""
    timeout = endpoint.timeouts.command
    try:
        try:
            await client.ehlo(timeout=timeout)
        except SMTPHeloError as error:
            if error.code // 100 != 5 or not client.is_connected:
                raise
            await client.helo(timeout=timeout)
    except SMTPResponseException as error:
        raise Unreached(_spoken(Stage.HELLO, error.code, error.message, endpoint), tls_of(client)) from error
    except (SMTPException, OSError) as error:
        raise Unreached(_lost_at(Stage.HELLO, endpoint, error)) from error


async def _start_tls(client: aiosmtplib.SMTP, endpoint: Endpoint, security: Security) -> None:
    weak = security.tls == "opportunistic"
    if not client.supports_extension("starttls"):
        if weak:
            return
        answer = _tls_answer(endpoint, "the host does not offer STARTTLS")
        raise Unreached(answer, fault=Fault.STARTTLS_NOT_SUPPORTED)
    try:
        name = security.name or endpoint.name
        await client.starttls(server_hostname=name, tls_context=security.context, timeout=endpoint.timeouts.connect)
        if security.proof is not None:
            security.proof(client.get_transport_info("ssl_object"))
    except SMTPResponseException as error:
        if weak and error.code != 421 and client.is_connected:
            return  # it cannot just now, and the connection is as it was
        raise Unreached(_tls_answer(endpoint, f"it answered STARTTLS with {error.code} {error.message}")) from error
    except NotProven as error:
        remedy = f"tell the administrator of {endpoint.name}: its certificate does not match its DNS records (TLSA)"
        raise Unreached(_tls_answer(endpoint, str(error), remedy)) from error
    except (SMTPException, OSError, ValueError) as error:  # ValueError: a name that cannot be said in TLS
        raise Unreached(_tls_answer(endpoint, _tls_error(error) or _in_short(error))) from error
    _check_fingerprint(client, endpoint)
    try:
        await _hello(client, endpoint)
    except Unreached as error:
        if weak and error.answer.lost:
            raise Unreached(_tls_answer(endpoint, error.answer.reply.text)) from error
        raise


def _check_fingerprint(client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
    """Leave a host whose certificate is none of those named, before anything is said to it. Raises: Unreached."""
    if not endpoint.fingerprints:
        return
    tls = client.get_transport_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    found = hashlib.sha256(certificate or b"").hexdigest()
    if found not in endpoint.fingerprints:
        client.close()
        remedy = f"check whether {endpoint.name} has a new certificate, and add its SHA-256 to tls_fingerprints"
        reply = Reply(451, "4.7.5", f"the certificate of {endpoint.name} has a different fingerprint: {found}")
        raise Unreached(Answer(Stage.TLS, reply, lost=True, reason=PauseReason.UNAVAILABLE, remedy=remedy))


async def _log_in(client: aiosmtplib.SMTP, endpoint: Endpoint) -> None:
    name, tls = endpoint.name, tls_of(client)
    if tls is None and not _on_loopback(client):
        raise _no_login(
            f"{name} does not offer TLS, and a password is never sent in clear text", "set tls: required, or another port"
        )
    if not client.supports_extension("auth"):
        remedy = f"find out which port of {name} accepts logins, or remove username"
        raise _no_login(f"{name} does not offer AUTH, but a username is configured", remedy, tls)
    token = await _token(endpoint, tls)
    usable = client.supported_auth_methods if token is None else [m for m in client.server_auth_methods if m == "xoauth2"]
    if not usable:
        methods = "PLAIN, LOGIN and CRAM-MD5" if token is None else "XOAUTH2"
        raise _no_login(f"{name} offers none of AUTH {methods}", tls=tls)
    timeout = endpoint.timeouts.command
    try:
        if token is not None:
            await client.auth_xoauth2(endpoint.username or "", token, timeout=timeout)
        else:
            await client.login(endpoint.username or "", endpoint.password or "", timeout=timeout)
    except SMTPResponseException as error:
        raise Unreached(_spoken(Stage.AUTH, error.code, error.message, endpoint), tls) from error
    except (SMTPException, OSError) as error:
        raise Unreached(_lost_at(Stage.AUTH, endpoint, error), tls) from error


async def _token(endpoint: Endpoint, tls: str | None) -> str | None:
    """Return the access token as it is now, where the login is by one. Raises: Unreached."""
    if endpoint.token is None:
        return None
    try:
        token = await asyncio.to_thread(endpoint.token)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise _no_token(f"the access token for {endpoint.name} cannot be read: {why}", tls) from None
    if not token.isascii() or not token.isprintable() or not token:
        raise _no_token(f"the access token for {endpoint.name} is not a valid token", tls)
    return token


def _no_token(text: str, tls: str | None) -> Unreached:
    remedy = "check that the program that renews the token writes only the token into token_file"
    return _no_login(text, remedy, tls, PauseReason.CREDENTIALS)


def _no_login(text: str, remedy: str = "", tls: str | None = None, reason: PauseReason = PauseReason.CONFIGURATION) -> Unreached:
    """Return what to raise where we do not even try to log in."""
    return Unreached(Answer(Stage.AUTH, Reply(451, "4.7.0", text), reason=reason, remedy=remedy), tls)


def parse_reply(code: int, text: str) -> Reply:
    """Make one line of a reply as aiosmtplib has it: octets that are no UTF-8 and repeated status codes go."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Reply.parse(code, _REPEATED_STATUS.sub("\n", clean))


def _spoken(stage: Stage, code: int, text: str, endpoint: Endpoint) -> Answer:
    if 400 <= code <= 599:
        return Answer(stage, parse_reply(code, text))
    reply = Reply(451, "4.5.0", f"{endpoint.name} does not speak SMTP: {parse_reply(0, text).text[:200]}")
    return Answer(stage, reply, lost=True)


def _lost_at(stage: Stage, endpoint: Endpoint, error: BaseException) -> Answer:
    return Answer(stage, parse_reply(451, f"4.4.2 lost the connection to {endpoint.name}: {_in_short(error)}"), lost=True)


def _tls_answer(endpoint: Endpoint, what: str, remedy: str = "") -> Answer:
    name = endpoint.security.name or endpoint.name
    usual = f"check that {name} is the name in its certificate, and that the certificate's issuer is trusted here (ca_file)"
    reply = parse_reply(451, f"4.7.5 no TLS with {endpoint.name}: {what}")
    return Answer(Stage.TLS, reply, lost=True, reason=PauseReason.UNAVAILABLE, remedy=remedy or usual)


def _tls_error(error: BaseException | None) -> str | None:
    """Return what TLS found wrong, where that is at the bottom of `error`."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message or "the certificate is not valid"
        if isinstance(error, ssl.SSLError):
            return error.reason or "the handshake failed"
        error = error.__cause__
    return None


def _in_short(error: BaseException) -> str:
    """Return what is at the bottom of `error`."""
    while isinstance(error, SMTPException) and error.__cause__ is not None:
        error = error.__cause__
    return plainly(error)


def tls_of(client: aiosmtplib.SMTP) -> str | None:
    """Return protocol and cipher as `trace` shows them: `TLSv1.3 TLS_AES_256_GCM_SHA384`; None in clear."""
    if not client.is_connected:
        return None
    tls = client.get_transport_info("ssl_object")
    if tls is None:
        return None
    cipher = tls.cipher()
    return f"{tls.version()} {cipher[0]}" if cipher else str(tls.version())


def _is_ip(address: str) -> bool:
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True


def _on_loopback(client: aiosmtplib.SMTP) -> bool:
    if not client.is_connected:
        return False
    peer = client.get_transport_info("peername")
    return bool(peer) and ip_address(str(peer[0]).partition("%")[0]).is_loopback
