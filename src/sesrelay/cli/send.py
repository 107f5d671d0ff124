"""`sesrelay send`: submit a test message to the running daemon, and follow it to its end."""

from __future__ import annotations

import asyncio
import math
import smtplib
import socket
import sys
import time
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.options import EX_FAILED, EX_TEMPFAIL, EX_UNAVAILABLE, config_option, load_or_exit
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.trace import print_event
from sesrelay.cli.words import harmless, moment, seconds
from sesrelay.control.client import ControlError, RemoteDesk
from sesrelay.control.question import NoAnswer
from sesrelay.mail.address import AddressError, check_local_part, domain_of
from sesrelay.mail.dates import rfc3339
from sesrelay.policy.admission import check_mailbox
from sesrelay.seams import Document

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded
    from sesrelay.config.model import Config

LOOK_EVERY = 0.1  # seconds
SIMULATOR_DOMAIN = "simulator.amazonses.com"
# Source: SES developer guide, "Using the mailbox simulator". SES accepts each of them; what follows comes as an event.
SIMULATOR = {
    "success": "delivers it",
    "bounce": "rejects it permanently (550 5.1.1), which SES reports as a bounce",
    "complaint": "delivers it, and the recipient complains",
    "ooto": "delivers it, and answers that the recipient is out of the office",
    "suppressionlist": "SES reports a bounce, as for an address on its suppression list",
}


@click.command()
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The sender; its domain decides the route.")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="May be repeated.")
@click.option(
    "--simulator",
    type=click.Choice([*SIMULATOR]),
    help="Send to SES's mailbox simulator, which reacts in this way and does not affect your reputation.",
)
@click.option("--subject", default="Test message from sesrelay", show_default=True)
@click.option("--timeout", default="60s", type=seconds, metavar="TIME", show_default=True, help="How long to follow it.")
@click.option(
    "--at",
    type=moment,
    metavar="TIME",
    help="When to send it: 2026-12-31T09:00:00Z, '2026-12-31 09:00', 09:00 or +2h. After --timeout it is not followed.",
)
@config_option
def command(
    config: Path, sender: str, recipients: tuple[str, ...], simulator: str | None, subject: str, timeout: float, at: float | None
) -> None:
    """Submit a test message and follow it. 0: all delivered, 1: any failed, 75: unfinished, 69: no daemon."""
    if (simulator is None) == (not recipients):
        raise click.UsageError("Give either --to or --simulator.")
    if simulator is not None:
        recipients = (f"{simulator}@{SIMULATOR_DOMAIN}",)
    for address in (sender, *recipients):
        _check(address)
    if not subject.isprintable():
        raise click.UsageError("--subject must be one line of text.")
    loaded = load_or_exit(config)
    if simulator is not None:
        _simulated_or_exit(loaded, sender, simulator)
    open_doors = [one.listen for one in loaded.config.listeners if one.tls != "implicit" and one.auth != "required"]
    message = _message(sender, recipients, subject)
    sys.exit(asyncio.run(_send(loaded.config, open_doors, message, sender, recipients, timeout, at)))


def _check(address: str) -> None:
    """Raises: click.UsageError for what is neither an address nor a name of this machine"""
    if "@" in address:
        refusal = check_mailbox(address, smtputf8=True, sender=False)
        if refusal is not None:
            raise click.UsageError(f"{address}: {refusal.text}")
        return
    try:
        check_local_part(address)
    except AddressError as error:
        raise click.UsageError(f"{address}: {error}") from None


def _simulated_or_exit(loaded: Loaded, sender: str, simulator: str) -> None:
    """Say what the simulator does; mail that does not leave through SES cannot get there."""
    from sesrelay.app.ses_access import leads_to_ses

    rule = loaded.routing.route(sender, [sender])
    if not any(leads_to_ses(loaded.config.transports[name]) for name in rule.transports):
        ways = ", ".join(rule.transports) or "no transport"
        fail(f"mail from {sender} leaves by {ways} ({rule.pattern}), but only SES reaches the simulator")
    click.echo(f"the simulator accepts it, and then: {SIMULATOR[simulator]}", err=True)


async def _send(
    config: Config,
    open_doors: list[str],
    message: EmailMessage,
    sender: str,
    recipients: tuple[str, ...],
    timeout: float,
    at: float | None,
) -> int:
    from sesrelay.app.operator import DaemonUnreachable, reach_daemon

    try:
        desk = await reach_daemon(config)
    except (DaemonUnreachable, ControlError) as error:
        click.echo(f"sesrelay: {error}", err=True)
        return EX_TEMPFAIL
    if desk is None:
        start = "start it with: systemctl start sesrelay (or: sesrelay run)"
        click.echo(as_run(f"sesrelay: no daemon answers at {config.control}; {start}"), err=True)
        return EX_UNAVAILABLE
    async with desk:
        try:
            status = await desk.call("status")
            door = next((status["listeners"][name] for name in open_doors if name in status["listeners"]), None)
            if door is None:
                click.echo(
                    "sesrelay: every listener requires a login or implicit TLS: add one without them for this machine", err=True
                )
                return EX_FAILED
            host, port = (door, 0) if isinstance(door, str) else door[:2]
            code, reply = await asyncio.to_thread(_submit, host, port, message, sender, recipients, at)
            if code >= 400:
                click.echo(as_run(harmless(reply)), err=True)
                return EX_FAILED if code >= 500 else EX_TEMPFAIL
            queue_id = reply.rpartition(" ")[2]
        except (ControlError, OSError) as error:
            click.echo(f"sesrelay: {error}", err=True)
            return EX_TEMPFAIL if isinstance(error, NoAnswer) else EX_UNAVAILABLE
        click.echo(f"queued as {queue_id}")
        sys.stdout.flush()
        if at is not None and at > time.time() + timeout:
            click.echo(as_run(f"will be sent at {_not_before(at)}; until then, see: sesrelay queue show {queue_id}"))
            return 0
        try:
            return await _follow(desk, queue_id, timeout)
        except ControlError as error:
            click.echo(as_run(f"sesrelay: {error}; follow it with: sesrelay trace {queue_id}"), err=True)
            return EX_TEMPFAIL


def _message(sender: str, recipients: tuple[str, ...], subject: str) -> EmailMessage:
    message = EmailMessage(SMTP if "".join((sender, *recipients)).isascii() else SMTPUTF8)
    message["From"], message["To"], message["Subject"] = sender, ", ".join(recipients), subject
    message["Date"], message["Message-ID"] = formatdate(localtime=True), make_msgid(domain=domain_of(sender) or None)
    message.set_content("This is a test message. It was submitted with `sesrelay send`.\n")
    return message


class _Smtp(smtplib.SMTP):
    """SMTP, also over a Unix socket, whose path stands for the host."""

    def connect(self, host: str = "localhost", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        if not host.startswith("/"):
            return super().connect(host, port, source_address)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(host)
        return self.getreply()


def _not_before(at: float) -> str:
    # Rounded up: a moment too early would not be what was asked for.
    return rfc3339(math.ceil(at), "seconds")


def _submit(
    host: str, port: int, message: EmailMessage, sender: str, recipients: tuple[str, ...], at: float | None
) -> tuple[int, str]:
    """Return the reply to the message's end, or the first one that refuses it, in a sentence."""
    options = ["SMTPUTF8"] if not "".join((sender, *recipients)).isascii() else []
    options += [f"HOLDUNTIL={_not_before(at)}"] if at is not None else []
    with _Smtp(host, port, timeout=30) as smtp:
        smtp.ehlo_or_helo_if_needed()
        answers = [("MAIL FROM", smtp.mail(sender, options)), *((f"RCPT TO:<{to}>", smtp.rcpt(to)) for to in recipients)]
        answers += [] if any(code >= 400 for _, (code, _) in answers) else [("DATA", smtp.data(message.as_bytes()))]
        for command, (code, text) in answers:
            if code >= 400:
                return code, f"{command} was refused: {code} {text.decode(errors='replace')}"
        code, text = answers[-1][1]
        return code, text.decode(errors="replace")


async def _follow(desk: RemoteDesk, queue_id: str, timeout: float) -> int:
    deadline, shown = time.monotonic() + timeout, 0
    while True:
        document = next(iter(await desk.trace(queue_id)), None)
        if document is None:
            click.echo(f"{queue_id} is gone from the queue", err=True)
            return EX_FAILED
        for event in document["events"][shown:]:
            print_event(event)
        shown = len(document["events"])
        code = _verdict(document)
        if code is not None:
            return code
        if time.monotonic() >= deadline:
            click.echo(as_run(f"not finished within {timeout:.0f}s; follow it with: sesrelay trace {queue_id}"), err=True)
            return EX_TEMPFAIL
        await asyncio.sleep(LOOK_EVERY)


def _verdict(document: Document) -> int | None:
    """Return the exit code once there is one: what is held will not move without an operator."""
    states = {one["state"] for one in document["deliveries"]}
    if "failed" in states and not states & {"queued", "in_flight"}:
        return EX_FAILED
    if states == {"delivered"}:
        return 0
    return EX_TEMPFAIL if not states & {"queued", "in_flight"} else None
