"""`preflight` on the whole process: who is not verified hears it at MAIL, and nobody while the list cannot be had."""

from __future__ import annotations

import signal
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for

CONTENT = "From: a@{domain}\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@{domain}>\r\n\r\nHello.\r\n"


def mail(relay: Relay, domain: str) -> tuple[int, str]:
    with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
        smtp.ehlo()
        code, text = smtp.mail(f"a@{domain}")
        return code, text.decode()


def relay_at(ses: StandIn, tmp_path: Path, **more: object) -> Relay:
    transport = ses_transport("ses-main", ses.url, **more)
    return Relay(tmp_path, f"transports:\n{transport}\ndefault_route: {{transport: ses-main}}")


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET}, "verified": ["example.com"]}) as made:
        yield made


def test_an_unverified_sender_is_refused_at_mail_until_it_is_verified(tmp_path: Path, ses: StandIn) -> None:
    with relay_at(ses, tmp_path, preflight=True) as relay:
        refused = wait_for("the list is there", lambda: (found := mail(relay, "example.net"))[0] == 550 and found)
        assert refused[1].startswith("5.7.1 example.net is not a verified identity of the SES account in us-east-1: verify it")
        assert mail(relay, "example.com")[0] == mail(relay, "sub.example.com")[0] == 250
        with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            try:
                smtp.sendmail("a@example.com", ["b@example.org"], CONTENT.format(domain="example.net"))
            except smtplib.SMTPDataError as error:
                assert error.smtp_code == 550
            else:
                raise AssertionError("a header From that is not verified was taken")
        ses.tell(verified=["example.com", "example.net"])
        wait_for("the list is fetched again", lambda: mail(relay, "example.net")[0] == 250)


def test_a_reload_lets_nobody_slip_in(tmp_path: Path, ses: StandIn) -> None:
    with relay_at(ses, tmp_path, preflight=True) as relay:
        wait_for("the list is there", lambda: mail(relay, "example.net")[0] == 550)
        ses.process.send_signal(signal.SIGSTOP)  # so that the list cannot be had again at once, however quick the machine
        try:
            assert relay.ask("reload")["ok"]
            assert mail(relay, "example.net")[0] == 550
        finally:
            ses.process.send_signal(signal.SIGCONT)


def test_nobody_is_refused_while_the_list_cannot_be_had(tmp_path: Path, ses: StandIn) -> None:
    ses.tell(keys={"another": "key"})
    with relay_at(ses, tmp_path, preflight=True) as relay:
        wait_for("it has been asked for", lambda: [one for one in relay.events("trouble") if "cannot be listed" in str(one)])
        assert mail(relay, "example.net")[0] == 250


def test_an_unverified_author_is_rewritten_and_the_trace_says_so(tmp_path: Path, ses: StandIn) -> None:
    with relay_at(ses, tmp_path, preflight=True, rewrite_from="post@example.com") as relay:
        with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            smtp.sendmail("a@example.net", ["b@example.org"], CONTENT.format(domain="example.net"))
        (taken,) = wait_for("SES has it", ses.journal)
        assert taken["source"] == "post@example.com"
        assert b"\r\nFrom: post@example.com\r\n" in taken["raw"]
        assert b"\r\nX-Original-From: a@example.net\r\n" in taken["raw"]
        assert b"\r\nReply-To: a@example.net\r\n" in taken["raw"]
        wait_for("the outcome is stored", lambda: relay.ask("summary")["messages"] == 0)
        receipts = next(event["changes"] for event in relay.trace("1@example.net")["events"] if event["event"] == "attempt")
        assert "From a@example.net became post@example.com: it is not a verified identity" in receipts
