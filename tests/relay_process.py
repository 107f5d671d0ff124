"""The real process with real neighbours: `sesrelay run` before the strict stand-in for SES, for tests of the whole."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sesrelay.control.client import RemoteDesk
from sesrelay.spool.writer.process import DIED

PYTHON = sys.executable
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what `condition` gives once it is true; fail naming `what` where it never is."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g}s: {what}")
        time.sleep(0.02)


@dataclass
class StandIn:
    """The strict stand-in for SES as a process of its own."""

    control: dict[str, Any] = field(default_factory=dict)
    args: tuple[str, ...] = ()

    def __enter__(self) -> StandIn:
        command = [PYTHON, "-m", "sesrelay.testing.ses", "--control", json.dumps(self.control), *self.args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def journal(self) -> list[dict[str, Any]]:
        """Return what was taken, oldest first, `raw` as bytes."""
        with urllib.request.urlopen(f"{self.url}/journal") as answer:
            taken = json.load(answer)["taken"]
        for one in taken:
            one["raw"] = base64.b64decode(one["raw"])
        return list(taken)

    def tell(self, **wishes: Any) -> None:
        """Change its behaviour."""
        request = urllib.request.Request(f"{self.url}/control", json.dumps(wishes).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()


class Relay:
    """One `sesrelay run` with its folder. `more` is YAML that follows the frame; transports and routes belong there."""

    def __init__(self, folder: Path, more: str, *, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.log = folder / "log.jsonl"
        self.control = folder / "control.sock"
        self.env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.write(more)

    def write(self, more: str) -> None:
        self.config.touch(mode=0o600)
        self.config.write_text(
            f"hostname: relay.example.net\nstate_dir: {self.folder}/state\ncontrol: {self.control}\n"
            'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\n'
            f"{more}\n"
        )

    def start(self) -> Relay:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "sesrelay", "run", "--config", str(self.config)], env=self.env, stderr=log
            )
        self.status = wait_for("the daemon is ready", self._look, 90.0)
        return self

    def _look(self) -> dict[str, Any] | None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")
        try:
            status = self.ask("status")
        except OSError:
            return None
        return dict(status)

    def __enter__(self) -> Relay:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_writer(self) -> None:
        """Kill the writer, and wait for the daemon to end of it."""
        assert self.process is not None
        os.kill(self.writer, signal.SIGKILL)
        assert self.process.wait(30) == DIED

    def stop(self, seconds: float = 30.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    @property
    def writer(self) -> int:
        """The process id of its writer, which is its only child."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        (found,) = " ".join(each.read_text() for each in tasks).split()
        return int(found)

    @property
    def pids(self) -> tuple[int, int]:
        assert self.process is not None
        return self.process.pid, self.writer

    @property
    def smtp(self) -> tuple[str, int]:
        host, port = self.status["listeners"]["127.0.0.1:0"][:2]
        return host, port

    @property
    def http(self) -> str:
        return str(self.status["http"]).rstrip("/")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.http}{path}") as answer:
            return bytes(answer.read())

    def ask(self, verb: str, **args: Any) -> Any:
        """Ask the control socket."""

        async def ask() -> Any:
            async with await RemoteDesk.connect(self.control) as desk:
                return await desk.call(verb, args)

        return asyncio.run(ask())

    def run(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Call a verb as a user would."""
        command = [PYTHON, "-m", "sesrelay", *args, "--config", str(self.config)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, input=stdin, check=False)

    def json(self, *args: str) -> Any:
        done = self.run(*args, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def submit(
        self, sender: str, recipients: str | Iterable[str], content: bytes = b"", *, options: Iterable[str] = (), notify: str = ""
    ) -> str:
        """Send by smtplib and return the queue id. `notify`: NOTIFY, and with it ORCPT, for each recipient."""
        to = [recipients] if isinstance(recipients, str) else list(recipients)
        raw = content or f"From: {sender}\r\nTo: {', '.join(to)}\r\nSubject: test\r\n\r\nHello\r\n".encode()
        with smtplib.SMTP(*self.smtp, timeout=30) as smtp:
            smtp.ehlo("client.example.net")
            code, text = smtp.mail(sender, list(options))
            for address in to if code == 250 else []:
                code, text = smtp.rcpt(address, [f"NOTIFY={notify}", f"ORCPT=rfc822;{address}"] if notify else [])
            if code == 250:
                code, text = smtp.data(raw)
        assert code == 250, (code, text)
        return text.decode().rpartition(" ")[2]

    def trace(self, any_id: str) -> dict[str, Any]:
        (found,) = self.ask("trace", id=any_id)
        return dict(found)

    def ended(self, queue_id: str, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait until every delivery of a message has ended, and return them."""

        def look() -> list[dict[str, Any]] | None:
            deliveries = self.ask("show", id=queue_id)["deliveries"]
            return deliveries if all(one["state"] in ("delivered", "failed") for one in deliveries) else None

        return list(wait_for(f"{queue_id} has ended", look, seconds))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's events of that name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]


def ses_transport(name: str, url: str, **more: str) -> str:
    """Return one line of YAML under `transports`."""
    keys = {"region": "us-east-1", "endpoint_url": url, "access_key_id": KEY, "secret_access_key": SECRET, **more}
    return f"  {name}: {{type: ses, {', '.join(f'{key}: {json.dumps(value)}' for key, value in keys.items())}}}"
