"""The daemon before SES's SMTP endpoint under its real name, beside the API of the same account."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import subprocess
from pathlib import Path

import trustme

from relay_process import PYTHON, Relay, wait_for
from sesrelay.testing import Account, SesStandIn
from sesrelay.testing.ses_rules import Bucket
from small_dns import SmallDns

KEY, SECRET = "AKIAQNZGKIQY56JQ7WML", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # its account can be read from it
REGION = "eu-west-1"
HOST = f"email-smtp.{REGION}.amazonaws.com"
RATE = 20.0
MESSAGES = 40  # by each way: together twice what the account saves up, so that two paces of their own would be refused


def mail_from(relay: Relay) -> tuple[int, str]:
    with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
        smtp.ehlo()
        code, text = smtp.mail("a@unknown.example")
        return code, text.decode()


async def test_api_and_smtp_share_the_pace_of_the_account_and_doctor_finds_both_well(tmp_path: Path) -> None:
    ca, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(tls)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    verified = frozenset({"api.example", "smtp.example"})
    account = Account(region=REGION, rate=RATE, bucket=Bucket(RATE), verified=verified)
    async with (
        SesStandIn(account=account, keys={KEY: SECRET}, smtp_tls=tls) as ses,
        SmallDns({(HOST, "A"): ["127.0.0.1"]}) as dns,
    ):
        relay = Relay(
            tmp_path,
            f"""transports:
  api: {{type: ses, region: {REGION}, endpoint_url: "{ses.url}", access_key_id: {KEY}, secret_access_key: {SECRET}}}
  smtp: {{type: smtp, host: {HOST}, port: {ses.smtp_port}, username: {KEY}, password_file: smtp.password, ca_file: ca.pem,
    nameservers: ["{dns.nameserver}"], preflight: true, identities_from: api}}
routes:
  - {{sender: unknown.example, transport: smtp}}
  - {{sender: api.example, transport: api}}
  - {{sender: smtp.example, transport: smtp}}
default_route: {{reject: true}}""",
        )
        command = [PYTHON, "-m", "sesrelay", "smtp-password", "--region", REGION]
        password = await asyncio.to_thread(subprocess.run, command, input=SECRET, capture_output=True, text=True, check=True)
        (tmp_path / "smtp.password").write_text(password.stdout)
        (tmp_path / "smtp.password").chmod(0o600)
        await asyncio.to_thread(relay.start)
        try:
            await asyncio.to_thread(wait_for, "the rate is known", lambda: b"ses_send_rate_limit" in relay.get("/metrics"))
            for n in range(MESSAGES):
                for way in ("api", "smtp"):
                    await asyncio.to_thread(relay.submit, f"app{n}@{way}.example", "you@example.org")
            await asyncio.to_thread(wait_for, "all is there", lambda: len(ses.journal) == 2 * MESSAGES, 60.0)
            assert sorted(taken.api for taken in ses.journal) == ["smtp"] * MESSAGES + ["v1"] * MESSAGES
            assert dict(ses.refused) == {}
            queue_id = await asyncio.to_thread(relay.submit, "app@smtp.example", "you@example.org")
            (delivery,) = await asyncio.to_thread(relay.ended, queue_id)
            assert delivery["remote_id"] == ses.journal[-1].message_id
            (attempt,) = [one for one in (await asyncio.to_thread(relay.trace, queue_id))["events"] if one["event"] == "attempt"]
            assert attempt["tls"].endswith("(verified)")
            counted = (await asyncio.to_thread(relay.get, "/metrics")).decode()
            assert f'sesrelay_ses_recipients_total{{transport="smtp"}} {MESSAGES + 1}.0' in counted
            assert 'sesrelay_ses_throttled_total{transport="smtp"} 0.0' in counted
            refused = await asyncio.to_thread(wait_for, "the list is there", lambda: (said := mail_from(relay))[0] == 550 and said)
            assert refused[1].startswith(f"5.7.1 unknown.example is not a verified identity of the SES account in {REGION}")
            found = await asyncio.to_thread(relay.run, "doctor")
            assert f"ok   relay host: smtp: {HOST}:{ses.smtp_port} answers, with TLS" in found.stdout
            assert f"ok   credentials: smtp: {HOST}:{ses.smtp_port} accepts the login" in found.stdout
        finally:
            await asyncio.to_thread(relay.stop)
    assert SECRET not in relay.log.read_text()
