"""The demonstration: a whole relay with a stand-in for SES, in a temporary folder, with no configuration."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path

from sesrelay.app.daemon import Daemon
from sesrelay.config.loading import load
from sesrelay.testing.ses import SesStandIn
from sesrelay.testing.ses_rules import Account, Bucket
from sesrelay.testing.ses_server import KEY, SECRET

CONFIGURATION = """\
hostname: demo.sesrelay.example
state_dir: {folder}/state
control: {folder}/control.sock
listeners: [{{listen: "127.0.0.1:{smtp_port}"}}]
http: {{listen: "127.0.0.1:{http_port}"}}
log: {{level: warning}}
limits: {{min_free_disk: 16MiB}}
transports:
  ses-demo:
    type: ses
    region: us-east-1
    endpoint_url: {ses_url}
    access_key_id: {key}
    secret_access_key: {secret}
default_route: {{transport: ses-demo}}
"""
LOOK_EVERY = 0.02  # seconds
RATE, DAILY = 100.0, 50_000.0  # what a young production account may have: recipients a second, and in 24 h


@dataclass(frozen=True, slots=True)
class Arrived:
    """The sample message at the stand-in."""

    queue_id: str
    ses_id: str


@dataclass(slots=True)
class Demo:
    """Ports of 0 take any free one. `say` gets each line that the user is to see."""

    folder: Path
    say: Callable[[str], None]
    smtp_port: int
    http_port: int
    ses_port: int

    async def run(self, *, timeout: float, once: bool, until: asyncio.Event) -> bool:
        """Start all of it, send the sample, and serve until told; tell whether the sample arrived.

        Raises: ListenError, OSError where something cannot be started.
        """
        ses = SesStandIn(port=self.ses_port, account=Account(rate=RATE, quota=DAILY, bucket=Bucket(RATE)), keys={KEY: SECRET})
        async with ses:
            daemon = Daemon(load(self._configure(ses.url)), None)
            await daemon.start()
            try:
                smtp = self._introduce(daemon, ses.url)
                arrived = await self._sample(daemon, ses, smtp, timeout)
                if arrived is not None:
                    self.say(f"delivered {arrived.queue_id} {arrived.ses_id}")
                    if not once:
                        await until.wait()
                return arrived is not None
            finally:
                await daemon.stop()

    def _configure(self, ses_url: str) -> Path:
        path = self.folder / "config.yaml"
        path.touch(mode=0o600)
        ports = {"smtp_port": self.smtp_port, "http_port": self.http_port}
        path.write_text(CONFIGURATION.format(folder=self.folder, ses_url=ses_url, key=KEY, secret=SECRET, **ports))
        return path

    def _introduce(self, daemon: Daemon, ses_url: str) -> tuple[str, int]:
        status = daemon.status()
        host, port = next(iter(status["listeners"].values()))[:2]
        self.say(f"smtp {host}:{port}")
        self.say(f"http {status['http']}")
        self.say(f"ses {ses_url}")
        return host, port

    async def _sample(self, daemon: Daemon, ses: SesStandIn, smtp: tuple[str, int], timeout: float) -> Arrived | None:
        """Send one message as an application would, and wait until the stand-in has it."""
        queue_id, document = await asyncio.to_thread(_submit, *smtp), None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    document = await daemon.desk.show(queue_id)
                    ses_id = document["deliveries"][0]["remote_id"] if document else None
                    if ses_id and any(taken.message_id == ses_id for taken in ses.journal):
                        return Arrived(queue_id, ses_id)
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            reply = document["deliveries"][0]["reply"] if document else None
            self.say(f"not delivered within {timeout:g}s: {reply or 'no host has answered yet'}")
            return None


def _submit(host: str, port: int) -> str:
    message = EmailMessage(SMTP)
    message["From"] = "Your application <app@example.com>"
    message["To"] = "someone@example.org"
    message["Subject"] = "Your password reset"
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="example.com")
    message.set_content("It came in by SMTP and left through SES.\n")
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        smtp.ehlo_or_helo_if_needed()
        smtp.mail("app@example.com")
        smtp.rcpt("someone@example.org")
        return smtp.data(message.as_bytes())[1].decode().rpartition(" ")[2]
