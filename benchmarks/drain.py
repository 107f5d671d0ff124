"""Measures how fast a full queue leaves: sesrelay and its peers, one after the other on the same machine.

The sink is stopped (SIGSTOP) while smtp-source fills the queue; connections to it hang meanwhile, as they do with a host that
has stalled. Then it goes on, and the clock runs until it has every message. Rounds alternate between the relays. Prints
min-median-max, and the ratio of our median to each peer's.

Invariant: a figure counts only where the sink took every message, and where none had left before the clock ran.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import Bench, spread, start
from procs import cpu
from relays import RELAYS

DRAIN_SECONDS = 300.0
SESSIONS = 10


@dataclass(frozen=True)
class Sample:
    """One drain. Units: messages a second; milliseconds of CPU a message, that of the relay and its children."""

    drained: float
    cpu_ms: float


def drain(bench: Bench, messages: int, size: int) -> Sample:
    """Fill the queue before a sink that stands still, let it go on, and take the time. Raises: RuntimeError where one is missing."""
    source = peers.find("smtp-source")
    assert source is not None
    before = bench.sink.received()
    bench.sink.pause()
    try:
        done = subprocess.run(
            source.command(
                "-d", "-s", str(SESSIONS), "-m", str(messages), "-l", str(size),
                "-f", "bench@example.com", "-t", "someone@example.net", f"127.0.0.1:{bench.relay.port}",
            ),
            env=dict(source.env), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{bench.relay.name}: smtp-source: {done.stderr.strip()}")
        time.sleep(1.0)  # what acceptance still has to do is not the drain's
        if bench.sink.received() != before:
            raise RuntimeError(f"{bench.relay.name}: the sink did not stand still")
        used = cpu(bench.relay.pid)
    finally:
        bench.sink.go_on()
    began = time.perf_counter()
    while bench.sink.received() < before + messages:
        if time.perf_counter() - began > DRAIN_SECONDS:
            raise RuntimeError(f"{bench.relay.name}: {before + messages - bench.sink.received()} messages never reached the sink")
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    time.sleep(0.5)  # what the relay does after the last message counts too
    return Sample(messages / seconds, (cpu(bench.relay.pid) - used) * 1000 / messages)


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="drains of each relay (3)")
    parser.add_argument("--messages", type=int, default=5000, help="messages in the queue (5000)")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message (4096)")
    parser.add_argument("--folder", default="/var/tmp", help="where the queues are (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    args = parser.parse_args()
    if not (peers.find("smtp-source") and peers.find("smtp-sink")):
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    kinds = [kind for kind in (made() for made in RELAYS) if kind.unavailable() is None]
    samples: dict[str, list[Sample]] = {kind.name: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=args.folder) as folder:
        Path(folder).chmod(0o711)  # Postfix's daemons are other users
        benches: list[Bench] = []
        try:
            for kind in kinds:
                benches.append(start(kind, Path(folder) / kind.name))
            for _ in range(args.rounds):
                for bench in benches:
                    samples[bench.relay.name].append(drain(bench, args.messages, args.size))
        finally:
            for bench in benches:
                bench.stop()
    if args.json:
        print(json.dumps({name: [asdict(sample) for sample in runs] for name, runs in samples.items()}, indent=2))
        return 0
    print(f"a queue of {args.messages} messages of {args.size} octets drains: {args.rounds} rounds in turn, min-median-max")
    for title, values in (
        ("at the sink/s", {name: [sample.drained for sample in runs] for name, runs in samples.items()}),
        ("CPU ms/message", {name: [sample.cpu_ms for sample in runs] for name, runs in samples.items()}),
    ):
        ours, *others = values
        form = ".0f" if title.startswith("at") else ".2f"
        row = f"  {title:16}{ours}: {spread(values[ours], form)}"
        for name in others:
            ratio = statistics.median(values[ours]) / statistics.median(values[name])
            row += f"   {name}: {spread(values[name], form)}   ratio {ratio:.2f}"
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
