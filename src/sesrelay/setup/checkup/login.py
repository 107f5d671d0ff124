"""A relay by SMTP: whether it answers, keeps to TLS and takes the login; nothing is sent.

Source: RFC 4954; SES guide: 535 for SMTP credentials that are not valid in that region.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sesrelay.setup.checkup.check import Check, fail, ok, warn
from sesrelay.setup.sites.shapes import wrong_secret

TIMEOUT = 10.0  # seconds for each step


@dataclass(frozen=True, slots=True)
class Login:
    """A transport of type smtp. `tls`: as the configuration has it; `ses`: the host is SES's own; `address`: of the host, where it is
    known already; `tls_name`: what the certificate is for, where that is not the host.
    """

    transport: str
    host: str
    port: int
    tls: str
    username: str | None
    password: str | None = field(repr=False)
    ca_file: Path | None = None
    hostname: str = "localhost"
    ses: bool = False
    address: str | None = None
    tls_name: str | None = None


def relay(login: Login) -> Iterator[Check]:
    """Connect, and log in where there is a login. Blocks."""
    wrong = wrong_secret(login.password, smtp=True) if login.ses and login.password else None
    if wrong:
        yield fail("secret", login.transport, wrong, "sesrelay smtp-password --region REGION makes the password")
    where = f"{login.host}:{login.port}"
    try:
        yield from _session(login, where)
    except smtplib.SMTPAuthenticationError as error:
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        remedy = (
            "SMTP credentials of this region are meant (sesrelay smtp-password)" if login.ses else "correct username and password"
        )
        yield fail("credentials", login.transport, f"{where} refuses the login: {error.smtp_code} {said}", remedy)
    except ssl.SSLError as error:
        yield fail(
            "tls", login.transport, f"{where}: {error.reason or error}", "correct the host's name, ca_file, or its certificate"
        )
    except smtplib.SMTPException as error:
        yield fail("relay host", login.transport, f"{where}: {error}", "look at the host, or its port and tls here")
    except OSError as error:
        yield fail(
            "relay host", login.transport, f"{where} cannot be reached: {error.strerror or error}", "look at host, port and network"
        )


def _session(login: Login, where: str) -> Iterator[Check]:
    context = ssl.create_default_context(cafile=login.ca_file)
    if login.tls == "implicit":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(local_hostname=login.hostname, timeout=TIMEOUT, context=context)
    else:
        smtp = smtplib.SMTP(local_hostname=login.hostname, timeout=TIMEOUT)
    smtp._host = login.tls_name or login.host  # type: ignore[attr-defined] # what TLS verifies; smtplib has no other way to say so
    with smtp:
        code, said = smtp.connect(login.address or login.host, login.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        smtp.ehlo_or_helo_if_needed()
        secure = login.tls == "implicit"
        if login.tls in ("required", "opportunistic") and smtp.has_extn("starttls"):
            smtp.starttls(context=context)
            secure = True
        elif login.tls == "required":
            yield fail("tls", login.transport, f"{where} offers no STARTTLS", "tls: implicit, or another port, is meant")
            return
        yield ok("relay host", login.transport, f"{where} answers{', with TLS' if secure else ''}")
        if login.username is None or login.password is None:
            return
        if not secure:
            yield warn("credentials", login.transport, "the password would leave in clear text", "tls: required")
            return
        smtp.login(login.username, login.password)
        yield ok("credentials", login.transport, f"{where} takes the login")
