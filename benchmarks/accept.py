"""Measures how fast mail is accepted and passed on: sesrelay and its peers, one after the other on the same machine.

Every relay hands what smtp-source gives it to its own smtp-sink; rounds alternate between the relays, so that whatever
else the machine does meets all alike. Prints min-median-max, and the ratio of our median to each peer's.

Invariant: a figure counts only where the sink took every message in the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from procs import PeakMemory, cpu
from relays import RELAYS, Relay, Running, Sink, free_port

DRAIN_SECONDS = 300.0
WARM_UP = 200


@dataclass(frozen=True)
class Case:
    """One way to hand in mail. Units: `size` octets."""

    key: str
    what: str
    sessions: int
    messages: int
    size: int = 4096
    kept: bool = True


CASES = (
    Case("1", "1 connection, kept", 1, 3000),
    Case("10", "10 connections, kept", 10, 6000),
    Case("50", "50 connections, kept", 50, 6000),
    Case("new", "10 at once, a connection a message", 10, 4000, kept=False),
    Case("100k", "10 connections, kept, 100 KB", 10, 1500, size=100_000),
)


@dataclass(frozen=True)
class Sample:
    """What one run of a case showed. Units: messages a second, milliseconds, MiB, messages, seconds."""

    accepted: float
    relayed: float
    cpu_ms: float
    peak_mib: float
    backlog: int


@dataclass
class Bench:
    """A relay that runs, with the sink behind it."""

    relay: Running
    sink: Sink

    def run(self, case: Case) -> Sample:
        """Hand in the case's messages and wait until the sink has all. Raises: RuntimeError where one is missing."""
        source = peers.find("smtp-source")
        assert source is not None
        goal = self.sink.received() + case.messages
        options = ["-s", str(case.sessions), "-m", str(case.messages), "-l", str(case.size), *(["-d"] if case.kept else [])]
        addresses = ["-f", "bench@example.com", "-t", "someone@example.net", f"127.0.0.1:{self.relay.port}"]
        used = cpu(self.relay.pid)
        with PeakMemory(self.relay.pid) as memory:
            start = time.perf_counter()
            done = subprocess.run(
                source.command(*options, *addresses), env=dict(source.env), capture_output=True, text=True, check=False
            )
            accepted = time.perf_counter() - start
            backlog = goal - self.sink.received()
            if done.returncode != 0:
                raise RuntimeError(f"{self.relay.name}: smtp-source: {done.stderr.strip()}")
            while self.sink.received() < goal:
                if time.perf_counter() - start > DRAIN_SECONDS:
                    raise RuntimeError(f"{self.relay.name}: {goal - self.sink.received()} messages never reached the sink")
                time.sleep(0.01)
            relayed = time.perf_counter() - start
        time.sleep(0.3)  # what the relay does after the last message counts too
        spent = (cpu(self.relay.pid) - used) * 1000 / case.messages
        return Sample(case.messages / accepted, case.messages / relayed, spent, memory.mib, max(0, backlog))

    def stop(self) -> None:
        """End the relay, then its sink."""
        self.relay.stop()
        self.sink.stop()


def start(kind: Relay, folder: Path) -> Bench:
    """Start a relay and its sink in `folder`, and warm both up."""
    (folder / "sink").mkdir(parents=True)
    (folder / "relay").mkdir()
    sink = Sink(folder / "sink")
    try:
        bench = Bench(kind.start(folder / "relay", free_port(), sink.port), sink)
    except BaseException:
        sink.stop()
        raise
    try:
        bench.run(Case("", "", 4, WARM_UP))
    except BaseException:
        bench.stop()
        raise
    return bench


# --- the table ---------------------------------------------------------------------------------------------------

MEASURES: tuple[tuple[str, str, Callable[[Sample], float], str], ...] = (
    ("accepted", "accepted/s", lambda sample: sample.accepted, ".0f"),
    ("relayed", "at the sink/s", lambda sample: sample.relayed, ".0f"),
    ("cpu_ms", "CPU ms/message", lambda sample: sample.cpu_ms, ".2f"),
    ("peak_mib", "peak MiB (PSS)", lambda sample: sample.peak_mib, ".0f"),
    ("backlog", "backlog at last accept", lambda sample: float(sample.backlog), ".0f"),
)


def spread(values: Iterable[float], form: str) -> str:
    """Return min-median-max."""
    ordered = sorted(values)
    return "-".join(format(value, form) for value in (ordered[0], statistics.median(ordered), ordered[-1]))


def table(case: Case, samples: dict[str, list[Sample]]) -> str:
    """Return the lines of one case: a row a measure, a column a relay, and the ratio of our median to each peer's."""
    ours, *others = samples
    lines = [f"{case.what} ({case.messages} messages of {case.size} octets)"]
    lines.append("".join([f"  {'':24}", f"{ours:>24}", *(f"{name:>24}{'ratio':>8}" for name in others)]))
    for _, title, value, form in MEASURES:
        mine = [value(sample) for sample in samples[ours]]
        row = f"  {title:24}{spread(mine, form):>24}"
        for name in others:
            theirs = [value(sample) for sample in samples[name]]
            middle = statistics.median(theirs)
            row += f"{spread(theirs, form):>24}" + (f"{statistics.median(mine) / middle:8.2f}" if middle else f"{'-':>8}")
        lines.append(row)
    return "\n".join(lines)


def main() -> int:
    """Run the cases asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case for each relay (3)")
    parser.add_argument("--messages", type=int, help="messages a run, instead of each case's own number")
    parser.add_argument("--cases", default=",".join(case.key for case in CASES), help="which, with commas: %(default)s")
    parser.add_argument("--relays", default=",".join(kind.name for kind in RELAYS), help="which, with commas: %(default)s")
    parser.add_argument(
        "--folder", default="/var/tmp", help="where the queues are: on the disk that shall be measured (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    args = parser.parse_args()
    cases = [
        case if args.messages is None else replace(case, messages=args.messages)
        for case in CASES
        if case.key in args.cases.split(",")
    ]
    if not cases:
        parser.error("no such case")
    if not (peers.find("smtp-source") and peers.find("smtp-sink")):
        print(
            "smtp-source and smtp-sink of the postfix package are wanted: `make peers` unpacks them where apt is", file=sys.stderr
        )
        return 69
    kinds: list[Relay] = []
    for kind in (made() for made in RELAYS if made.name in args.relays.split(",")):
        reason = kind.unavailable()
        if reason is None:
            kinds.append(kind)
        else:
            print(f"without {kind.name}: {reason}", file=sys.stderr)
    results: dict[str, dict[str, list[Sample]]] = {case.key: {kind.name: [] for kind in kinds} for case in cases}
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=args.folder) as folder:
        Path(folder).chmod(0o711)  # Postfix's daemons are other users
        benches: list[Bench] = []
        try:
            for kind in kinds:
                benches.append(start(kind, Path(folder) / kind.name))
            if not args.json:
                print(f"min-median-max of {args.rounds} rounds run in turn; ratio: our median to theirs")
            for case in cases:
                for _ in range(args.rounds):
                    for bench in benches:
                        results[case.key][bench.relay.name].append(bench.run(case))
                if not args.json:
                    print(table(case, results[case.key]), flush=True)
        finally:
            for bench in benches:
                bench.stop()
    if args.json:
        document = {
            key: {name: [asdict(sample) for sample in runs] for name, runs in by_relay.items()} for key, by_relay in results.items()
        }
        print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
