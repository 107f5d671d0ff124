"""However many large messages come at once, the process stays within what it was given, and all of them get through."""

from __future__ import annotations

import smtplib
import threading
import time
from pathlib import Path

import pytest

from relay_process import Relay, wait_for

MIB = 2**20
MESSAGE, MEMORY, CLIENTS = 16 * MIB, 100 * MIB, 10
BESIDE = 150 * MIB  # what the process may take besides: DEFENCES (memory)
BODIES = {"long lines": b"x" * 998 + b"\r\n", "empty lines": b"\r\n"}


def resident(pid: int) -> int:
    """Return the resident set in octets."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


class Watch(threading.Thread):
    """Notes the highest resident set until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.peak = max(self.peak, resident(self.pid))


def send_until_taken(address: tuple[str, int], content: bytes, told: list[int], *, declared: bool) -> None:
    """Send one message, again whenever it is put off; note each answer's code."""
    while True:
        with smtplib.SMTP(*address, timeout=60) as client:
            client.ehlo("client.example")
            options = f" SIZE={len(content)}" if declared else ""
            code, _ = client.docmd(f"MAIL FROM:<a@example.com>{options}")
            if code == 250:
                client.docmd("RCPT TO:<b@example.org>")
                code, _ = client.docmd("DATA")
                if code == 354:
                    client.sock.sendall(content + b".\r\n")  # type: ignore[union-attr]
                    code, _ = client.getreply()
            told.append(code)
            if code == 250:
                return
            assert code == 452
        time.sleep(0.1)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("body", BODIES)
def test_many_large_messages_at_once(tmp_path: Path, body: str, declared: bool) -> None:
    limits = f"limits: {{message_size: {MESSAGE}, memory: {MEMORY}, min_free_disk: 0}}\n"
    line = BODIES[body]
    content = b"Subject: large\r\n\r\n" + line * ((MESSAGE - 1000) // len(line))
    told: list[int] = []
    with Relay(tmp_path, limits + "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}") as relay:
        assert relay.process is not None
        watch = Watch(relay.process.pid)
        clients = [
            threading.Thread(target=send_until_taken, args=(relay.smtp, content, told), kwargs={"declared": declared})
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        wait_for("the queue is empty", lambda: relay.ask("summary")["messages"] == 0)
        watch.over.set()
    assert told.count(250) == CLIENTS
    assert 452 in told  # together they want twice what there is
    assert 0 < watch.peak < MEMORY + BESIDE
