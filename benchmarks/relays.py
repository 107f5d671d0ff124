"""The relays under comparison, each started beside the others with its own sink behind it.

Invariant: everything runs from temporary folders on loopback; nothing is installed, and stopping leaves nothing running.
A further peer is a class with `name`, `unavailable` and `start`, and one entry in RELAYS.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Protocol

import peers
from postfix_folder import prepare

START_SECONDS = 30.0


@dataclass
class Running:
    """A relay that answers on `port`; `pid` is the root of its process tree."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Return the process that CPU and memory are counted from."""
        return self.process.pid

    def stop(self) -> None:
        """End it, politely first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Relay(Protocol):
    """A kind of relay that can be measured."""

    name: ClassVar[str]

    def unavailable(self) -> str | None:
        """Return why it cannot run on this machine, or None."""

    def start(self, folder: Path, port: int, sink_port: int) -> Running:
        """Start it on loopback `port`, handing everything to the sink; `folder` is empty and its own."""


class Sesrelay:
    """This project, as `sesrelay run` with one smtp transport."""

    name: ClassVar[str] = "sesrelay"

    def unavailable(self) -> str | None:
        return None

    def start(self, folder: Path, port: int, sink_port: int) -> Running:
        config = folder / "config.yaml"
        config.write_text(
            f"""\
hostname: bench.example.com
state_dir: {folder / "state"}
control: {folder / "control.sock"}
listeners: [{{listen: "127.0.0.1:{port}"}}]
transports:
  sink: {{type: smtp, host: 127.0.0.1, port: {sink_port}, tls: none}}
default_route: {{transport: sink}}
http: {{listen: "127.0.0.1:{free_port()}"}}
log: {{format: json, level: warning}}
"""
        )
        config.chmod(0o600)
        (folder / "state").mkdir(mode=0o700)
        return launch(self.name, [sys.executable, "-m", "sesrelay", "run", "--config", str(config)], dict(os.environ), folder, port)


class Postfix:
    """A Postfix null client with Debian's settings, run from where `make test` unpacked it."""

    name: ClassVar[str] = "postfix"

    def unavailable(self) -> str | None:
        if os.geteuid() != 0:
            return "Postfix's master wants to be started by root"
        return None if peers.find("postfix") else "no postfix on the machine or under .cache/peers (`make peers` unpacks it)"

    def start(self, folder: Path, port: int, sink_port: int) -> Running:
        postfix = peers.find("postfix")
        assert postfix is not None
        command, env = prepare(postfix, folder, MASTER_CF.format(port=port), MAIN_CF.format(port=sink_port))
        return launch(self.name, command, env, folder, port)


RELAYS: tuple[type[Relay], ...] = (Sesrelay, Postfix)


MAIN_CF = """\
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = none
append_dot_mydomain = no
"""
MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
"""


def launch(name: str, command: list[str], env: dict[str, str], folder: Path, port: int) -> Running:
    """Start a process and wait for its greeting. Raises: RuntimeError with what it logged."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    running = Running(name, port, process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                if sock.recv(512).startswith(b"220"):
                    sock.sendall(b"QUIT\r\n")
                    return running
        except OSError:
            time.sleep(0.05)
    running.stop()
    raise RuntimeError(f"{name} did not come up: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """Return a loopback port that nothing uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(url: str) -> bool:
    """Tell whether 200 comes back."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Sink:
    """smtp-sink on a port of its own: takes every message and counts."""

    def __init__(self, folder: Path) -> None:
        program = peers.find("smtp-sink")
        assert program is not None
        self.port = free_port()
        self._counters = folder / "sink"
        self._out: IO[bytes] = self._counters.open("wb")
        unprivileged = ("-u", "nobody") if os.geteuid() == 0 else ()  # it refuses to stay root
        self._process = subprocess.Popen(
            program.command("-c", *unprivileged, f"127.0.0.1:{self.port}", "1000"),
            env=dict(program.env),
            stdout=self._out,
            stderr=self._out,
        )

    def received(self) -> int:
        """Return how many messages it has taken so far."""
        with self._counters.open("rb") as counters:
            counters.seek(max(0, self._counters.stat().st_size - 200))
            _, found, last = counters.read().rpartition(b"mesg=")
        return int(last.split()[0]) if found and last.split() else 0

    def pause(self) -> None:
        """Let it stand still, as a host that has stalled."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._out.close()
