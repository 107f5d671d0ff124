"""The measurements of `queue.py`: each prints its figure beside what is wanted of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import smtplib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import Bench, Case, spread
from flood import fill
from procs import resident
from relays import Running, Sink, answers, free_port, launch
from sesrelay.app.clock import SystemClock
from sesrelay.control.client import RemoteDesk
from sesrelay.mail.delivery import LaneKey
from sesrelay.spool.sqlite import SqliteSpool

MIB = 2**20
DAY = 86400.0


class Place:
    """One relay with its sink, its folder and its next hop that is down."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        (folder / "sink").mkdir(parents=True)
        self.state = folder / "state"
        self.control = folder / "control.sock"
        self.sink = Sink(folder / "sink")
        self.port, self.http, self.dead = free_port(), free_port(), free_port()
        self.config = folder / "config.yaml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            f"hostname: bench.example.com\nstate_dir: {self.state}\ncontrol: {self.control}\n"
            f'listeners: [{{listen: "127.0.0.1:{self.port}"}}]\nhttp: {{listen: "127.0.0.1:{self.http}"}}\n'
            f"transports:\n  sink: {{type: smtp, host: 127.0.0.1, port: {self.sink.port}, tls: none}}\n"
            f"  dead: {{type: smtp, host: 127.0.0.1, port: {self.dead}, tls: none}}\n"
            "routes: [{sender: down@example.com, transport: dead}]\ndefault_route: {transport: sink}\nlog: {level: warning}\n"
        )
        self.running: Running | None = None

    def lane(self, transport: str) -> LaneKey:
        return LaneKey(transport, f"smtp/127.0.0.1:{self.dead if transport == 'dead' else self.sink.port}/")

    def fill(self, messages: int) -> float:
        lanes = [("down@example.com", self.lane("dead"), 0.0), ("bench@example.com", self.lane("sink"), DAY)]
        return asyncio.run(fill(self.state, messages, lanes))

    def start(self) -> float:
        """Start the daemon; return the seconds until /readyz says 200."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "sesrelay", "run", "--config", str(self.config)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        while not answers(f"http://127.0.0.1:{self.http}/readyz"):
            if process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.005)
        self.running = Running(self.name, self.port, process)
        return time.perf_counter() - began

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.running is not None
        self.running.process.send_signal(how)
        self.running.process.wait(60)

    def bench(self) -> Bench:
        assert self.running is not None
        return Bench(self.running, self.sink)

    def resident(self, what: str = "VmRSS") -> float:
        assert self.running is not None
        return resident(self.running.pid, what)

    def verb(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "sesrelay", *args, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, check=False)

    def ask(self, verb: str, **args: object) -> object:
        async def ask() -> object:
            async with await RemoteDesk.connect(self.control) as desk:
                return await desk.call(verb, dict(args))

        return asyncio.run(ask())


def say(what: str, figure: str, wanted: str = "") -> None:
    print(f"  {what:<56}{figure:<44}{wanted and f'wanted: {wanted}'}", flush=True)


# --- the measurements --------------------------------------------------------------------------------------------


def traffic(empty: Place, full: Place, rounds: int) -> None:
    """Accept and drain beside an empty queue and beside a long one."""
    for case in (Case("10", "10 connections", 10, 6000), Case("1", "1 connection", 1, 2000)):
        samples: dict[str, list[tuple[float, float]]] = {place.name: [] for place in (empty, full)}
        for _ in range(rounds):
            for place in (empty, full):
                sample = place.bench().run(case)
                samples[place.name].append((sample.accepted, sample.relayed))
        for n, what in enumerate(("accepted/s", "relayed/s")):
            ours, theirs = ([sample[n] for sample in samples[place.name]] for place in (full, empty))
            ratio = statistics.median(ours) / statistics.median(theirs)
            figure = f"{spread(ours, '.0f')} to {spread(theirs, '.0f')}, ratio {ratio:.2f}"
            say(f"{case.what}: {what}, long to empty", figure, ">= 0.90")


def readiness(empty: Place, full: Place, rounds: int) -> None:
    """Stop and start both, politely and by SIGKILL."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for place in (empty, full):
                place.stop(how)
                times.setdefault(place.name, []).append(place.start())
        say(
            f"ready after {how.name}, seconds",
            f"{spread(times[full.name], '.2f')} (empty {spread(times[empty.name], '.2f')})",
            "<= 2",
        )


def questions(empty: Place, full: Place, rounds: int) -> None:
    """Ask for the summary, for what is not there, and for the whole list."""
    for title, ask in (
        ("summary, from the daemon's desk, ms", lambda place: place.ask("summary")),
        ("queue summary, the whole process, ms", lambda place: place.verb("queue", "summary", "--json")),
    ):
        times = {
            place.name: [1000 * timed(lambda ask=ask, place=place: ask(place)) for _ in range(3 * rounds)]
            for place in (full, empty)
        }
        say(title, f"{spread(times[full.name], '.0f')} (empty {spread(times[empty.name], '.0f')})", "<= 200")
    times = [timed(lambda: full.verb("queue", "list", "--sender", "nobody@example.com")) for _ in range(rounds)]
    say("queue list of a sender that has nothing, seconds", spread(times, ".2f"))
    before = full.resident()
    command = [sys.executable, "-m", "sesrelay", "queue", "list", "--json", "--config", str(full.config)]
    began, first, lines = time.perf_counter(), 0.0, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        for line in listing.stdout:
            first = first or (time.perf_counter() - began if line.startswith(b"{") else 0.0)
            lines += line.startswith(b"{")
        _, _, usage = os.wait4(listing.pid, 0)
        listing.returncode = 0
    took = time.perf_counter() - began
    say("queue list: first row, all rows, seconds", f"{first:.2f}, {took:.0f} for {lines} rows")
    say(
        "queue list: memory of the verb, and more of the daemon",
        f"{usage.ru_maxrss / 1024:.0f} MiB, {full.resident() - before:+.0f} MiB",
        "streams",
    )


def claims(small: Path, large: Path, lane: LaneKey, rounds: int) -> None:
    """Claim 100 deliveries and give them back, in a short lane and in a long one."""

    async def once(state: Path) -> list[float]:
        spool = await SqliteSpool.open(state, clock=SystemClock(), on_trouble=print)
        times = []
        for _ in range(20 * rounds):
            began = time.perf_counter()
            claim = await spool.claim(lane, 100, time.time())
            times.append(1000 * (time.perf_counter() - began))
            assert len(claim.deliveries) == 100
            await spool.unclaim([each.id for each in claim.deliveries])
        await spool.close()
        return times

    long, short = (asyncio.run(once(state)) for state in (large, small))
    ratio = statistics.median(long) / statistics.median(short)
    say(
        "claim of 100, ms, long lane to one of 1,000",
        f"{spread(long, '.2f')} to {spread(short, '.2f')}, ratio {ratio:.2f}",
        "about 1",
    )


def shrinking(full: Place) -> None:
    """Delete everything, and wait until the file has given its space back."""
    before = (full.state / "queue.db").stat().st_size / MIB
    began = time.perf_counter()
    done = full.verb("queue", "delete", "--sender", "*@example.com", "--yes")
    say("queue delete of all, seconds", f"{time.perf_counter() - began:.0f} ({done.stdout.decode().strip()})")
    began, sizes = time.perf_counter(), [before]
    while time.perf_counter() - began < 600:
        time.sleep(5)
        sizes.append((full.state / "queue.db").stat().st_size / MIB)
        if len(sizes) > 4 and sizes[-1] == sizes[-4]:
            break
    wal = (full.state / "queue.db-wal").stat().st_size / MIB
    say(
        "file after a flood, MiB",
        f"{before:.0f} -> {sizes[-1]:.0f} in {time.perf_counter() - began:.0f} s, log {wal:.0f}",
        "shrinks",
    )


def handover(folder: Path, messages: int) -> None:
    """Take the time from a client's 250 to the moment at which SES has its call, one message at a time."""
    stand_in = subprocess.Popen(
        [sys.executable, "-m", "sesrelay.testing.ses", "--rate", "10000"], stdout=subprocess.PIPE, text=True
    )
    assert stand_in.stdout is not None
    url = stand_in.stdout.readline().split()[1]
    port = free_port()
    config = folder / "config.yaml"
    config.touch(mode=0o600)
    config.write_text(
        f"state_dir: {folder}/state\ncontrol: {folder}/control.sock\nlisteners: [{{listen: '127.0.0.1:{port}'}}]\n"
        f"http: {{listen: '127.0.0.1:{free_port()}'}}\nlog: {{level: warning}}\n"
        f"transports:\n  ses: {{type: ses, region: us-east-1, endpoint_url: '{url}', access_key_id: AKIASTANDIN, secret_access_key: s}}\n"
        "default_route: {transport: ses}\n"
    )
    relay = launch("ses", [sys.executable, "-m", "sesrelay", "run", "--config", str(config)], dict(os.environ), folder, port)
    try:
        answered: dict[str, float] = {}
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            for n in range(messages + 20):
                smtp.ehlo_or_helo_if_needed()
                smtp.mail("bench@example.com")
                smtp.rcpt("someone@example.net")
                _, text = smtp.data(f"From: bench@example.com\r\nSubject: {n}\r\n\r\nx\r\n".encode())
                answered[text.decode().rpartition(" ")[2]] = time.time()
                time.sleep(0.02)
        time.sleep(1)
        with urllib.request.urlopen(f"{url}/journal") as answer:
            taken = {one["tags"]["sesrelay-id"]: one["at"] for one in json.load(answer)["taken"]}
        assert taken.keys() == answered.keys()
        waits = sorted(1000 * (taken[name] - at) for name, at in list(answered.items())[20:])
        figure = f"median {statistics.median(waits):.2f}, p99 {waits[len(waits) * 99 // 100]:.2f}"
        say("250 to the call at SES, ms", figure, "median <= 5")
    finally:
        relay.stop()
        stand_in.terminate()


def timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


PARTS = ("traffic", "ready", "questions", "claims", "handover", "shrink")


def main(args: Iterable[str] | None = None) -> int:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="that wait in the long queue (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas: %(default)s")
    parser.add_argument("--folder", default="/var/tmp", help="where the queues are; a million want 3 GB (%(default)s)")
    given = parser.parse_args(None if args is None else list(args))
    parts = given.parts.split(",")
    if not (peers.find("smtp-source") and peers.find("smtp-sink")):
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=given.folder) as name:
        Path(name).chmod(0o711)
        empty, full = (Place(each, Path(name) / each) for each in ("empty", "long"))
        try:
            run(parts, empty, full, Path(name), given.messages, given.rounds)
        finally:
            for place in (empty, full):
                if place.running is not None:
                    place.running.stop()
                place.sink.stop()
    return 0


def run(parts: list[str], empty: Place, full: Place, folder: Path, messages: int, rounds: int) -> None:
    print(f"{messages} messages wait in one of two queues; min-median-max of {rounds} rounds in turn")
    full.start()  # and stopped again: what is queued under the configuration of the last life is not placed anew
    full.stop()
    took = full.fill(messages)
    os.sync()  # or the system still writes what was filled in while the first rounds are measured
    say(
        "filled by way of the spool",
        f"{messages / took:.0f} messages a second, {(full.state / 'queue.db').stat().st_size / MIB:.0f} MiB",
    )
    if "claims" in parts:
        lane = full.lane("dead")
        asyncio.run(fill(folder / "small", 1_000, [("down@example.com", lane, 0.0)]))
        claims(folder / "small", full.state, lane, rounds)
    for place in (empty, full):
        place.start()
        place.bench().run(Case("", "", 4, 200))
    say("resident, MiB", f"{full.resident():.0f} (empty {empty.resident():.0f})", "<= 150")
    if "traffic" in parts:
        traffic(empty, full, rounds)
        say("peak so far, MiB", f"{full.resident('VmHWM'):.0f} (empty {empty.resident('VmHWM'):.0f})", "<= 150")
    if "questions" in parts:
        questions(empty, full, rounds)
    if "ready" in parts:
        readiness(empty, full, rounds)
    if "shrink" in parts:
        shrinking(full)
    if "handover" in parts:
        (folder / "ses").mkdir()
        handover(folder / "ses", 200)
