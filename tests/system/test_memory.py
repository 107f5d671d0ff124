"""However many large messages come at once, the process stays within what it was given, and all of them get through."""

from __future__ import annotations

import contextlib
import smtplib
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_process import Relay, wait_for

MIB = 2**20
MESSAGE, MEMORY, CLIENTS = 16 * MIB, 100 * MIB, 10
BESIDE = 150 * MIB  # what the process may take besides: docs/decisions/0015
BODIES = {"long lines": b"x" * 998 + b"\r\n", "empty lines": b"\r\n"}
STREAMED = 80 * MIB  # what ten of them may add to an idle process that puts them into files as they come


def resident(pids: tuple[int, ...]) -> int:
    """Return the resident sets in octets; nothing of a process that is ending."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


class Watch(threading.Thread):
    """Notes the highest resident set until it is stopped."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        self.pids, self.peak, self.over = pids, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.peak = max(self.peak, resident(self.pids))


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


class Sink(socketserver.StreamRequestHandler):
    """A next hop that keeps of each message how many octets it had."""

    taken: list[int]

    def handle(self) -> None:
        self.wfile.write(b"220 sink.example ESMTP\r\n")
        while verb := self.rfile.readline()[:4].upper():
            if verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                octets, tail = 0, b"\r\n"
                while tail != b"\r\n.\r\n":
                    piece = self.rfile.read1(65536)  # type: ignore[attr-defined]
                    if not piece:
                        return
                    octets, tail = octets + len(piece), (tail + piece)[-5:]
                self.taken.append(octets - 3)
            self.wfile.write(b"250 2.0.0 Ok\r\n")


@contextlib.contextmanager
def next_hop() -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a `Sink`, and what it has taken."""
    taken: list[int] = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Hop", (Sink,), {"taken": taken})) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], taken
        server.shutdown()


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("body", BODIES)
def test_many_large_messages_at_once(tmp_path: Path, body: str, declared: bool) -> None:
    line = BODIES[body]
    content = b"Subject: large\r\n\r\n" + line * ((MESSAGE - 1000) // len(line))
    with next_hop() as (port, taken):
        told, idle, peak = all_at_once(
            tmp_path, content, declared=declared, out=f"{{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}"
        )
    assert told == [250] * CLIENTS
    assert len(taken) == CLIENTS
    assert {0 < octets - len(content) < 1000 for octets in taken} == {True}  # our Received line in front
    assert idle < peak < idle + STREAMED


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_what_cannot_go_to_a_file_as_it_comes_is_put_off_while_others_are_held(tmp_path: Path, declared: bool) -> None:
    content = b"Subject: large\r\n" + b"no empty line in front\r\n" * ((MESSAGE - 1000) // 24)
    told, _, peak = all_at_once(tmp_path, content, declared=declared)
    assert told.count(250) == CLIENTS
    if not declared:  # together they want twice what there is
        assert 452 in told
    assert 0 < peak < MEMORY + BESIDE


def all_at_once(tmp_path: Path, content: bytes, *, declared: bool, out: str = "{type: discard}") -> tuple[list[int], int, int]:
    """Return what the clients were told, and the resident octets of the relay before they came and at most."""
    limits = f"limits: {{message_size: {MESSAGE}, memory: {MEMORY}, min_free_disk: 0}}\n"
    told: list[int] = []
    with Relay(tmp_path, f"{limits}transports: {{out: {out}}}\ndefault_route: {{transport: out}}") as relay:
        idle = resident(relay.pids)
        watch = Watch(relay.pids)
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
    return told, idle, watch.peak
