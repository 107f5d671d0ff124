"""A relay by SMTP: whether each of its hosts answers, keeps to TLS and takes the login; nothing is sent.

Invariant: the connection is opened as the daemon opens it, so that what is said here is what mail meets.

Source: RFC 4954; SES guide: 535 for SMTP credentials that are not valid in that region.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

from sesrelay.seams import Clock
from sesrelay.setup.checkup.check import Check, fail, ok, warn
from sesrelay.setup.sites.shapes import wrong_secret
from sesrelay.transport.client.answers import Stage
from sesrelay.transport.client.connect import Endpoint, Timeouts, Unreached, open_connection
from sesrelay.transport.smtp.transport import SmtpOptions, endpoints

TIMEOUTS = Timeouts(connect=10.0, command=10.0)
CHECKS = {Stage.TLS: "tls", Stage.AUTH: "credentials"}
REMEDIES = {
    "tls": "correct the host's name, tls_name, ca_file, or its certificate",
    "credentials": "correct username and password",
    "relay host": "check the host, its port, tls here, and the network",
}
SES_LOGIN = "use SMTP credentials of this region (sesrelay smtp-password)"


async def relay(transport: str, options: SmtpOptions, clock: Clock, *, ses: bool) -> list[Check]:
    """Connect to each host, and log in where there is a login. `ses`: the hosts are SES's own."""
    checks: list[Check] = []
    wrong = wrong_secret(options.password, smtp=True) if ses and options.password else None
    if wrong:
        checks.append(fail("secret", transport, wrong, "sesrelay smtp-password --region REGION makes the password"))
    try:
        asked = endpoints(replace(options, timeouts=TIMEOUTS), clock)
    except (OSError, ssl.SSLError) as error:
        return [*checks, fail("tls", transport, f"ca_file cannot be used: {error}", REMEDIES["tls"])]
    found = await asyncio.gather(*(_host(transport, endpoint, ses=ses) for endpoint in asked))
    works = any(one.status == "ok" for host in found for one in host)
    for one in (one for host in found for one in host):
        # A login that is refused is tried at no further host; what else is wrong with one host leaves the others.
        lesser = works and one.status == "fail" and one.check != "credentials"
        checks.append(replace(one, status="warn", message=f"{one.message}; mail goes through another host") if lesser else one)
    return checks


async def _host(transport: str, endpoint: Endpoint, *, ses: bool) -> list[Check]:
    where = f"{endpoint.name}:{endpoint.port}"
    try:
        opened = await open_connection(endpoint)
    except Unreached as error:
        answer = error.answer
        check = CHECKS.get(answer.stage, "relay host")
        refused = check == "credentials" and answer.reason is None and not answer.lost
        remedy = SES_LOGIN if refused and ses else answer.remedy or REMEDIES[check]
        said = f"{where} refuses the login: {answer.reply}" if refused else answer.reply.text
        return [fail(check, transport, said if endpoint.name in said else f"{where}: {said}", remedy)]
    if opened.transport is not None and not opened.transport.is_closing():
        opened.transport.write(b"QUIT\r\n")
        opened.transport.close()
    checks = [ok("relay host", transport, f"{where} answers{f', with {opened.tls}' if opened.tls else ''}")]
    if endpoint.username is not None:
        if opened.tls is None:
            checks.append(
                warn("credentials", transport, f"{where}: the login is sent in clear text, within this host", "tls: required")
            )
        else:
            checks.append(ok("credentials", transport, f"{where} accepts the login"))
    return checks
