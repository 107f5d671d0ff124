"""`sesrelay demo` as a newcomer meets it: nothing configured, a message in by SMTP and out at the strict stand-in."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from relay_process import PYTHON, wait_for

FREE = ("--smtp-port", "0", "--http-port", "0", "--ses-port", "0")


@dataclass
class Running:
    process: subprocess.Popen[str]
    said: dict[str, str]

    def get(self, url: str) -> bytes:
        with urllib.request.urlopen(url) as answer:
            return bytes(answer.read())

    def taken(self) -> list[dict[str, Any]]:
        return list(json.loads(self.get(self.said["ses"].rstrip("/") + "/journal"))["taken"])


@pytest.fixture
def demo() -> Iterator[Running]:
    process = subprocess.Popen([PYTHON, "-m", "sesrelay", "demo", *FREE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = dict(process.stdout.readline().rstrip().split(" ", 1) for _ in range(4))
    yield Running(process, said)
    process.kill()
    process.wait()


def test_the_sample_and_what_one_sends_oneself_arrive_and_the_page_shows_them(demo: Running) -> None:
    assert list(demo.said) == ["smtp", "http", "ses", "delivered"]
    queue_id, ses_id = demo.said["delivered"].split()
    (sample,) = demo.taken()
    assert (sample["message_id"], sample["tags"]["sesrelay-id"]) == (ses_id, queue_id)
    host, _, port = demo.said["smtp"].rpartition(":")
    with smtplib.SMTP(host, int(port)) as client:
        client.sendmail("me@shop.example", ["you@example.org"], "From: me@shop.example\r\nSubject: Mine\r\n\r\nHello.\r\n")
    mine = wait_for("it is there", lambda: demo.taken()[1:])[0]
    assert (mine["source"], mine["destinations"]) == ("me@shop.example", ["you@example.org"])
    page = wait_for("the page shows it", lambda: (p := demo.get(demo.said["http"]).decode()).count("me@shop.example") and p)
    assert "app@example.com" in page
    assert "ses-demo" in page
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(30) == 0


def once(*args: str) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, "-m", "sesrelay", "demo", "--once", *FREE, *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)


def test_once_leaves_when_the_sample_has_arrived() -> None:
    done = once()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["smtp", "http", "ses", "delivered"]


@pytest.mark.parametrize("option", ["--smtp-port", "--http-port", "--ses-port"])
def test_a_taken_port_ends_it_and_is_told(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = once(option, str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "taken" in done.stderr or "in use" in done.stderr
    assert option in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str) -> None:
    """libuv aborts where a socket of its own is one of the first three descriptors, so the daemon dumped core under some supervisors."""
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", PYTHON, "-m", "sesrelay", "demo", *FREE, "--once"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_who_has_read_enough_of_the_demo_is_told_of_no_failure() -> None:
    command = f"{PYTHON} -m sesrelay demo --once {' '.join(FREE)} | head -n 1"
    ended = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("smtp ")
    assert ended.stderr == ""
