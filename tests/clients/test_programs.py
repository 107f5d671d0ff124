"""Programs that people send mail with, each as it comes: what they hand in is what SES gets."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

import peers
from relay_process import Relay, StandIn, wait_for

Taken = Callable[[str], dict[str, Any]]
SENDER = "shop@example.com"
BODY = "Grüße,\r\n.\r\n..a line of dots\r\n\r\nthe shop\r\n"
MESSAGE = f"From: {SENDER}\r\nTo: <{{to}}>\r\nSubject: an order\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{BODY}"


def run(program: peers.Program, *args: str | Path, text: str = "", env: Mapping[str, str] | None = None) -> None:
    """Run a client to its end and see it content."""
    # Programs that read Unix text make CRLF of it themselves.
    given = text.replace("\r\n", "\n").encode()
    command = program.command(*args)
    done = subprocess.run(command, env={**program.env, **(env or {})}, input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def body(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


@pytest.fixture
def port(relay: Relay) -> str:
    return str(relay.smtp[1])


def test_smtplib(relay: Relay, taken: Taken) -> None:
    to = "smtplib@example.org"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, to, "an order"
    message.set_content(BODY.replace("\r\n", "\n"), charset="utf-8", cte="8bit")
    with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
        assert smtp.send_message(message) == {}
    found = taken(to)
    assert found["source"] == SENDER
    assert body(found["raw"]) == BODY.encode()


def test_swaks(port: str, taken: Taken, tmp_path: Path) -> None:
    to = "swaks@example.org"
    data = tmp_path / "message.eml"
    data.write_bytes(MESSAGE.format(to=to).encode())
    run(peers.require("swaks"), "--server", "127.0.0.1", "--port", port, "--from", SENDER, "--to", to, "--data", f"@{data}")
    assert body(taken(to)["raw"]).rstrip() == BODY.encode().rstrip()


def test_swaks_with_pipelining(port: str, taken: Taken) -> None:
    to = "pipelining@example.org"
    run(peers.require("swaks"), "--server", "127.0.0.1", "--port", port, "--pipeline", "--from", SENDER, "--to", to)
    assert taken(to)["source"] == SENDER


def test_msmtp(port: str, taken: Taken) -> None:
    to = "msmtp@example.org"
    args = ("--file=/dev/null", "--host=127.0.0.1", f"--port={port}", f"--from={SENDER}", "--", to)
    run(peers.require("msmtp"), *args, text=MESSAGE.format(to=to))
    assert body(taken(to)["raw"]) == BODY.encode()


def test_s_nail(port: str, taken: Taken) -> None:
    to = "s-nail@example.org"
    options = [
        f"-S{option}" for option in ("v15-compat", f"mta=smtp://127.0.0.1:{port}", "smtp-auth=none", f"from={SENDER}", "sendwait")
    ]
    env = {"MAILRC": "/dev/null", "LC_ALL": "C.UTF-8"}
    run(peers.require("s-nail"), "-:/", *options, "-s", "an order", to, text=BODY, env=env)
    found = taken(to)
    assert found["source"] == SENDER
    assert b"Subject: an order" in found["raw"]


def test_curl(port: str, taken: Taken, tmp_path: Path) -> None:
    to = "curl@example.org"
    upload = tmp_path / "message.eml"
    upload.write_bytes(MESSAGE.format(to=to).encode())
    url = f"smtp://127.0.0.1:{port}/client.example.com"
    run(
        peers.require("curl"), "-sS", "-q", "--noproxy", "*", url, "--mail-from", SENDER, "--mail-rcpt", to, "--upload-file", upload
    )
    assert body(taken(to)["raw"]) == BODY.encode()


def test_smtp_source(port: str, ses: StandIn) -> None:
    source, to = peers.require("smtp-source"), "many@example.org"
    run(source, "-s", "5", "-m", "50", "-l", "2048", "-d", "-f", SENDER, "-t", to, f"127.0.0.1:{port}")

    def arrived() -> bool:
        return sum(to in one["destinations"] for one in ses.journal()) == 50

    wait_for("SES has all fifty", arrived)
