"""Measures the way out through SES: sesrelay to a sink of SES's API, beside Postfix to smtp-sink and the same by boto3.

smtp-source hands in 4 KB messages over ten connections; a figure is messages a second until the sink has them all. Then
one client's 250 is timed while nine others send at full speed. Rounds alternate, so that whatever else the machine does
meets all alike. Prints min-median-max, and the ratio of our median to each of the others'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import Bench, Case, Sample, spread
from fairness import beside_the_busy, drain
from relays import Postfix, Relay, Running, Sink, free_port, launch

HERE = Path(__file__).resolve().parent
CASES = (Case("4k", "10 connections, kept", 10, 6000), Case("100k", "10 connections, kept, 100 KB", 10, 1500, size=100_000))
BESIDE = 1000  # messages of the one client beside nine: of three hundred, the 99th percentile is what the third slowest met
CONFIG = """\
hostname: bench.example.com
state_dir: {state}
control: {control}
listeners: [{{listen: "127.0.0.1:{port}"}}]
transports:
  ses: {{type: ses, region: us-east-1, api: {api}, endpoint_url: "http://127.0.0.1:{sink}", access_key_id: AKIABENCH, secret_access_key: secret}}
default_route: {{transport: ses}}
http: {{listen: "127.0.0.1:{http}"}}
log: {{format: json, level: warning}}
"""


class SesSink:
    """The sink of `ses_sink.py`, with the interface of smtp-sink's."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(HERE / "ses_sink.py")], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def received(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=30) as answer:
            return int(answer.read())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class ToSes:
    """This project with one ses transport."""

    name: ClassVar[str] = "sesrelay"
    api: ClassVar[str] = "v1"
    command: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "sesrelay")

    def unavailable(self) -> str | None:
        return None

    def start(self, folder: Path, port: int, sink_port: int) -> Running:
        config = folder / "config.yaml"
        config.write_text(
            CONFIG.format(
                state=folder / "state", control=folder / "control.sock", port=port, api=self.api, sink=sink_port, http=free_port()
            )
        )
        config.chmod(0o600)
        (folder / "state").mkdir(mode=0o700)
        env = {**os.environ, "PYTHONPATH": f"{HERE}"}
        return launch(self.name, [*self.command, "run", "--config", str(config)], env, folder, port)


class ToSesByV2(ToSes):
    name: ClassVar[str] = "sesrelay, v2"
    api: ClassVar[str] = "v2"


class ByBoto3(ToSes):
    name: ClassVar[str] = "by boto3"
    command: ClassVar[tuple[str, ...]] = (sys.executable, str(HERE / "ses_boto3.py"))


KINDS: tuple[type[Relay], ...] = (ToSes, Postfix, ByBoto3, ToSesByV2)


def start(kind: Relay, folder: Path) -> Bench:
    """Start a relay and the sink that it wants, and warm both up."""
    (folder / "sink").mkdir(parents=True)
    (folder / "relay").mkdir()
    sink = SesSink() if isinstance(kind, ToSes) else Sink(folder / "sink")
    try:
        bench = Bench(kind.start(folder / "relay", free_port(), sink.port), sink)  # type: ignore[arg-type]
    except BaseException:
        sink.stop()
        raise
    bench.run(Case("", "", 4, 200))
    return bench


def report(title: str, values: dict[str, list[float]], form: str) -> str:
    ours, *others = values
    middle = statistics.median(values[ours])
    text = f"  {title:22}{spread(values[ours], form):>20}"
    for name in others:
        theirs = statistics.median(values[name])
        text += f"{spread(values[name], form):>20}{middle / theirs if theirs else 0.0:8.2f}"
    return text


def throughput(benches: list[Bench], case: Case, rounds: int) -> None:
    found: dict[str, list[Sample]] = {bench.relay.name: [] for bench in benches}
    for _ in range(rounds):
        for bench in benches:
            found[bench.relay.name].append(bench.run(case))
    print(f"{case.what} ({case.messages} messages of {case.size} octets)")
    print("".join([f"  {'':22}{benches[0].relay.name:>20}", *(f"{bench.relay.name:>20}{'ratio':>8}" for bench in benches[1:])]))
    print(report("at the sink/s", {name: [one.relayed for one in runs] for name, runs in found.items()}, ".0f"))
    print(report("CPU ms/message", {name: [one.cpu_ms for one in runs] for name, runs in found.items()}, ".2f"), flush=True)


def beside(benches: list[Bench], rounds: int, messages: int) -> None:
    found: dict[str, list[float]] = {bench.relay.name: [] for bench in benches}
    for _ in range(rounds):
        for bench in benches:
            times = sorted(beside_the_busy(bench.relay.port, messages))
            found[bench.relay.name].append(1000 * times[len(times) * 99 // 100])
            drain(bench)
    print(f"one client beside nine at full speed: ms from MAIL to 250, {messages} messages")
    print(report("p99", found, ".1f"), flush=True)


def main() -> int:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case for each relay (3)")
    parser.add_argument("--messages", type=int, help="messages a run, instead of each case's own number")
    parser.add_argument("--cases", default="4k,100k,p99", help="which, with commas: %(default)s")
    parser.add_argument("--folder", default="/var/tmp", help="where the queues are (%(default)s)")
    args = parser.parse_args()
    if not (peers.find("smtp-source") and peers.find("smtp-sink")):
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    kinds = [made for made in (kind() for kind in KINDS) if made.unavailable() is None]
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=args.folder) as folder:
        Path(folder).chmod(0o711)  # Postfix's daemons are other users
        benches: list[Bench] = []
        try:
            for number, kind in enumerate(kinds):
                benches.append(start(kind, Path(folder) / str(number)))
            for case in CASES:
                if case.key in args.cases.split(","):
                    messages = args.messages or case.messages
                    throughput(benches, Case(case.key, case.what, case.sessions, messages, case.size), args.rounds)
            if "p99" in args.cases.split(","):
                beside(benches, args.rounds, BESIDE)
        finally:
            for bench in benches:
                bench.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
