"""Programs that people send mail with from a shell, each as it comes: what they hand in is what leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peers
from clients.languages import BY_NAME, Way, mail, send
from clients.programs import PROGRAMS, Letter, Shell, curl, msmtp, run, swaks
from clients.sink import Sink, Wiretap, body, recipients
from relay_process import Relay, StandIn, wait_for

Taken = Callable[[str], dict[str, Any]]
SENDER = "shop@example.net"
TEXT = f"Grüße,\r\n.\r\n..a line of dots\r\n\r\n{'x' * 998}\r\nthe shop\r\n"


@pytest.fixture(params=PROGRAMS, ids=str)
def program(request: pytest.FixtureRequest) -> Shell:
    found: Shell = request.param
    return found


def test_a_message_to_two(program: Shell, way: Way, sink: Sink, tmp_path: Path) -> None:
    to = (f"one.{program}@example.org", f"two.{program}@example.org")
    text = TEXT if program.long_lines else TEXT.replace("x" * 998, "x" * 70)
    done = program.send(way, Letter(SENDER, to, text), tmp_path)
    assert done.code == 0, done.said
    found = sink.message(to[0])
    assert found.mail.startswith(f"MAIL FROM:<{SENDER}>")
    assert recipients(found) == set(to)
    assert body(found.content).rstrip() == text.encode().rstrip()
    assert b"Subject: an order" in found.content or b"Subject: [PATCH] an order" in found.content


def test_through_ses(program: Shell, way: Way, taken: Taken, tmp_path: Path) -> None:
    to = f"ses.{program}@example.org"
    done = program.send(way, Letter("shop@example.com", (to,), TEXT.replace("x" * 998, "x" * 70)), tmp_path)
    assert done.code == 0, done.said
    found = taken(to)
    assert found["source"] == "shop@example.com"
    assert "Grüße,\r\n.\r\n..a line of dots\r\n".encode() in body(found["raw"])


def test_a_refused_sender_shows(program: Shell, way: Way, tmp_path: Path) -> None:
    done = program.send(way, Letter("shop@refused.example", ("b@example.org",)), tmp_path)
    assert done.code != 0
    assert "5.7.1" in done.said


def test_a_full_disk_is_no_refusal_for_good(program: Shell, full: Way, tmp_path: Path) -> None:
    done = program.send(full, Letter(SENDER, ("b@example.org",)), tmp_path)
    assert done.code != 0
    assert "4.3.1" in done.said


def test_addresses_beyond_ascii_by_curl(way: Way, sink: Sink, tmp_path: Path) -> None:
    to = "grüße@exämple.org"
    done = curl(way, Letter(SENDER, (to,)), tmp_path)
    assert done.code == 0, done.said
    (found,) = wait_for("the message", lambda: [one for one in sink.host.messages if "grüße@" in one.rcpt[0]])
    assert "SMTPUTF8" in found.mail.split()


@pytest.mark.parametrize("name", ["smtplib", "nodemailer"])
def test_addresses_beyond_ascii_by_a_library(name: str, way: Way, sink: Sink) -> None:
    to = f"{name}.tür@example.org"
    sent = send(BY_NAME[name], way, mail(SENDER, to))
    assert sent.told[0]["ok"], sent.told
    assert "SMTPUTF8" in sink.message(to).mail.split()


def test_swaks_with_pipelining(relay: Relay, sink: Sink, tmp_path: Path) -> None:
    to = tuple(f"pipelined{i}@example.org" for i in range(20))
    with Wiretap(*relay.smtp) as tap:
        done = swaks(Way("127.0.0.1", tap.port), Letter(SENDER, to), tmp_path, "--pipeline")
    assert done.code == 0, done.said
    assert recipients(sink.message(to[0])) == set(to)


def test_swaks_where_one_of_several_recipients_is_refused(way: Way, sink: Sink, tmp_path: Path) -> None:
    done = swaks(way, Letter(SENDER, ("nobody@app.localhost", "partly@example.org")), tmp_path)
    assert "553 5.1.3" in done.said
    assert recipients(sink.message("partly@example.org")) == {"partly@example.org"}


def test_msmtp_asks_for_reports(way: Way, sink: Sink, tmp_path: Path) -> None:
    done = msmtp(way, Letter(SENDER, ("reports@example.org",)), tmp_path, "--dsn-notify=failure,delay", "--dsn-return=full")
    assert done.code == 0, done.said
    found = sink.message("reports@example.org")
    assert "RET=FULL" in found.mail.split()
    (rcpt,) = found.rcpt
    (notify,) = (word for word in rcpt.split() if word.startswith("NOTIFY="))
    assert set(notify.removeprefix("NOTIFY=").split(",")) == {"FAILURE", "DELAY"}


def test_curl_names_the_author(way: Way, sink: Sink, tmp_path: Path) -> None:
    """MAIL FROM:<…> AUTH=<…>: of no use here, and no reason to refuse."""
    done = curl(way, Letter(SENDER, ("author@example.org",)), tmp_path, "--mail-auth", "author@example.net")
    assert done.code == 0, done.said
    sink.message("author@example.org")


def test_smtp_source(way: Way, ses: StandIn) -> None:
    to = "many@example.org"
    args = ("-s", "5", "-m", "50", "-l", "2048", "-d", "-f", "shop@example.com", "-t", to, f"127.0.0.1:{way.port}")
    done = run(peers.require("smtp-source"), *args)
    assert done.code == 0, done.said

    def arrived() -> bool:
        return sum(to in one["destinations"] for one in ses.journal()) == 50

    wait_for("SES has all fifty", arrived)
