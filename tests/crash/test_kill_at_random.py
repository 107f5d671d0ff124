"""SIGKILL at random while mail comes in: whatever got its 250 is there afterwards."""

from __future__ import annotations

import random
import smtplib
import socket
import threading
import time
from pathlib import Path

from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for

MESSAGES, CLIENTS, KILLS = 1500, 10, 10


def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with StandIn({"keys": {KEY: SECRET}}) as ses:
        more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\nlog: {{level: warning}}"
        relay = Relay(tmp_path, more)
        relay.config.write_text(
            relay.config.read_text().replace('listeners: [{listen: "127.0.0.1:0"}]', f'listeners: [{{listen: "127.0.0.1:{port}"}}]')
        )
        with relay:
            acknowledged: set[str] = set()
            clients = [threading.Thread(target=_client, args=(port, MESSAGES // CLIENTS, acknowledged)) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            dice, in_flight = random.Random(7), 0
            for _ in range(KILLS):
                time.sleep(dice.uniform(0.05, 0.4))
                relay.kill()
                relay.start()
                in_flight += int(relay.ask("summary")["by_state"]["queued"])
            for client in clients:
                client.join(120)
                assert not client.is_alive()
            assert len(acknowledged) == MESSAGES
            _finish(relay)
            taken = [one["tags"]["sesrelay-id"] for one in ses.journal()]
            lost = sorted(acknowledged - set(taken))
            assert not lost[:3], f"{len(lost)} of {MESSAGES} are lost"
            # What was stored and not acknowledged was sent again by its client under another id: only ids count here.
            assert len(taken) - len(set(taken)) <= in_flight


def _client(port: int, messages: int, acknowledged: set[str]) -> None:
    """Send, and try again as a mail program does when the relay is gone, until each has its 250."""
    smtp: smtplib.SMTP | None = None
    for n in range(messages):
        while True:
            try:
                if smtp is None:
                    smtp = smtplib.SMTP("127.0.0.1", port, timeout=30)
                    smtp.ehlo()
                smtp.mail("a@example.com")
                smtp.rcpt("b@example.org")
                code, text = smtp.data(f"From: a@example.com\r\nSubject: {n}\r\n\r\n{'x' * 500}\r\n".encode())
                if code == 250:
                    acknowledged.add(text.decode().rpartition(" ")[2])
                    break
            except (smtplib.SMTPException, OSError):
                smtp = None
                time.sleep(0.05)


def _finish(relay: Relay) -> None:
    """Let what is in doubt go at once, and release what three doubts held."""

    def done() -> bool:
        counts = relay.ask("summary")["by_state"]
        if counts["queued"]:
            relay.run("queue", "retry", "--transport", "ses-main")
        if counts["held"]:
            relay.run("queue", "release", "--state", "held")
        return not any(counts.values())

    wait_for("the queue is empty", done, 60)
