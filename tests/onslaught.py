"""A relay under load that is killed, or whose next hop fails: clients that insist, a next hop that counts, and the reckoning.

For tests of a few seconds and for `benchmarks/soak.py`, which takes hours if asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import smtplib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batches import unused_port
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from sesrelay.control.client import RemoteDesk
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter

SINK = Path(__file__).with_name("smtp_sink.py")


class SesHop:
    """The stand-in for SES as the next hop; `taken` has the queue ids that it took, each as often as it did."""

    def __init__(self, chances: dict[str, float] | None = None) -> None:
        self._ses = StandIn({"keys": {KEY: SECRET}, "chances": chances or {}}, ("--rate", "100000"))

    def __enter__(self) -> SesHop:
        self._ses.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ses.__exit__()

    @property
    def transport(self) -> str:
        return ses_transport("out", self._ses.url)

    def taken(self) -> list[str]:
        return [one["tags"]["sesrelay-id"] for one in self._ses.journal()]

    def mend(self) -> None:
        self._ses.tell(chances={})


class SmtpHop:
    """A relay as the next hop, in a process of its own."""

    def __enter__(self) -> SmtpHop:
        self._taken: list[str] = []
        self._process = subprocess.Popen([sys.executable, str(SINK)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._taken.append(line.strip())

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def transport(self) -> str:
        return f"  out: {{type: smtp, host: 127.0.0.1, port: {self._port}, tls: none}}"

    def taken(self) -> list[str]:
        return list(self._taken)

    def mend(self) -> None:
        """Do nothing: it never fails."""


Hop = SesHop | SmtpHop


@dataclass
class Clients:
    """Programs that send until each message has its 250. `messages` None: until `stop`. Units: `pause` seconds."""

    port: int
    count: int = 10
    messages: int | None = None
    pause: float = 0.0
    acknowledged: set[str] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        each = None if self.messages is None else self.messages // self.count
        self._threads = [threading.Thread(target=self._send, args=(each,), daemon=True) for _ in range(self.count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def join(self, seconds: float = 120.0) -> None:
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a client never got through"

    def _send(self, messages: int | None) -> None:
        smtp: smtplib.SMTP | None = None
        n = 0
        while not self._over.is_set() and (messages is None or n < messages):
            try:
                if smtp is None:
                    smtp = smtplib.SMTP("127.0.0.1", self.port, timeout=60)
                    smtp.ehlo("client.example")
                smtp.mail("a@example.com")
                smtp.rcpt("b@example.org")
                code, text = smtp.data(f"From: a@example.com\r\nSubject: {n}\r\n\r\n{'x' * 500}\r\n".encode())
                if code == 250:
                    self.acknowledged.add(text.decode().rpartition(" ")[2])
                    n += 1
                    self._over.wait(self.pause)
                else:
                    self.refused[code] += 1
                    self._over.wait(0.05)
            except smtplib.SMTPResponseException as error:
                self.refused[error.smtp_code] += 1
                smtp = None
            except (smtplib.SMTPException, OSError):
                smtp = None
                self._over.wait(0.02)


@contextlib.contextmanager
def relay_before(hop: Hop, folder: Path, more: str = "") -> Iterator[tuple[Relay, int]]:
    """Run a relay whose port stays the same over its lives."""
    port = unused_port()
    relay = Relay(folder, f"transports:\n{hop.transport}\ndefault_route: {{transport: out}}\nlog: {{level: warning}}\n{more}")
    relay.config.write_text(relay.config.read_text().replace('"127.0.0.1:0"}]\nhttp', f'"127.0.0.1:{port}"}}]\nhttp'))
    with relay:
        yield relay, port


@dataclass
class Reckoning:
    """`bound`: what may have been sent twice: what each next life found in doubt."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    bound: int = 0
    restarts: list[float] = field(default_factory=list)


def kill_at_random(hop: Hop, folder: Path, kills: int, messages: int | None, seed: int = 7, say: Any = None) -> Reckoning:
    """Kill a relay at random under load, every fourth time by its writer, and reckon up once all is delivered.

    `messages` None: for as long as the kills take.
    """
    dice, reckoning = random.Random(seed), Reckoning(kills)
    with relay_before(hop, folder) as (relay, port):
        clients = Clients(port, messages=messages, pause=0.02 if messages is None else 0.0)
        clients.start()
        for n in range(kills):
            time.sleep(dice.uniform(0.02, 0.4))
            (relay.kill_writer if n % 4 == 3 else relay.kill)()
            began = time.monotonic()
            relay.start()
            reckoning.restarts.append(time.monotonic() - began)
            reckoning.bound += in_doubt(relay)
            if say is not None and n % 10 == 9:
                say(n + 1, len(clients.acknowledged))
                finish(relay)
        if messages is None:
            clients.stop()
        clients.join()
        finish(relay)
        taken = hop.taken()
    reckoning.acknowledged = len(clients.acknowledged)
    reckoning.lost = len(clients.acknowledged - set(taken))
    # What was stored and not acknowledged was sent again by its client under another id: only ids count here.
    reckoning.twice = len(taken) - len(set(taken))
    return reckoning


def in_doubt(relay: Relay) -> int:
    """Return how many deliveries wait in doubt: they were in flight when the process died, and wait for a minute at least."""

    async def count() -> int:
        async with await RemoteDesk.connect(relay.control) as desk:
            return len([one async for one in desk.listing(Filter(states=(State.QUEUED,))) if one["reason"] == "in_doubt"])

    return asyncio.run(count())


def finish(relay: Relay, seconds: float = 120.0) -> None:
    """Let what is in doubt go at once, and release what three doubts held, until nothing waits."""

    def done() -> bool:
        counts = relay.ask("summary")["by_state"]
        for state, verb in (("queued", "retry"), ("held", "release")):
            if counts[state]:
                relay.ask(verb, ids=[], states=[state], sender=None, recipient=None, transport=None, older_than=None)
        return not any(counts.values())

    wait_for("the queue is empty", done, seconds)


@dataclass(frozen=True)
class Vital:
    """What the two processes hold at one moment. Units: MiB, MiB."""

    resident: float
    descriptors: int
    threads: int
    log: float
    waiting: int


def vitals(relay: Relay) -> Vital:
    procs = [Path(f"/proc/{pid}") for pid in relay.pids]
    statuses = [dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line) for proc in procs]
    wal = relay.folder / "state" / "queue.db-wal"
    return Vital(
        sum(int(status["VmRSS"].split()[0]) for status in statuses) / 1024,
        sum(len(os.listdir(proc / "fd")) for proc in procs),
        sum(int(status["Threads"]) for status in statuses),
        wal.stat().st_size / 2**20 if wal.exists() else 0.0,
        int(relay.ask("summary")["deliveries"]),
    )


FIVE_PERCENT = {"throttle": 0.01, "500": 0.01, "503": 0.01, "reset_before": 0.01, "reset_after": 0.01}
