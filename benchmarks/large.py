"""Measures how fast large messages come in: ours as a whole relay, beside aiosmtpd as it is, which keeps nothing.

Prints min-median-max of MB a second over the rounds, which alternate, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import spread
from relays import Running, Sesrelay, Sink, free_port, launch

SIZE = 10_000_000
STOCK = """
import asyncio, sys
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Sink(), hostname="bench.example.com"), "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


class StockAiosmtpd:
    """aiosmtpd with nothing of ours, and a handler that throws the message away."""

    name: ClassVar[str] = "aiosmtpd"

    def start(self, folder: Path, port: int, sink_port: int) -> Running:
        return launch(self.name, [sys.executable, "-c", STOCK, str(port)], dict(os.environ), folder, port)


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs for each (3)")
    parser.add_argument("--messages", type=int, default=20, help="messages a run (20)")
    parser.add_argument("--folder", default="/var/tmp", help="where the queue is (%(default)s)")
    args = parser.parse_args()
    source = peers.find("smtp-source")
    if source is None or peers.find("smtp-sink") is None:
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=args.folder) as folder:
        (Path(folder) / "sink").mkdir()
        sink = Sink(Path(folder) / "sink")
        running: list[Running] = []
        try:
            for kind in (Sesrelay(), StockAiosmtpd()):
                (Path(folder) / kind.name).mkdir()
                running.append(kind.start(Path(folder) / kind.name, free_port(), sink.port))
            for _ in range(args.rounds):
                for relay in running:
                    began = time.perf_counter()
                    subprocess.run(
                        source.command(
                            "-d", "-s", "2", "-m", str(args.messages), "-l", str(SIZE),
                            "-f", "bench@example.com", "-t", "someone@example.net", f"127.0.0.1:{relay.port}",
                        ),
                        env=dict(source.env), check=True, capture_output=True,
                    )  # fmt: skip
                    rates.setdefault(relay.name, []).append(args.messages * SIZE / 1e6 / (time.perf_counter() - began))
                    settle(sink)
        finally:
            for relay in running:
                relay.stop()
            sink.stop()
    ours, stock = rates
    ratio = statistics.median(rates[ours]) / statistics.median(rates[stock])
    print(f"{args.messages} messages of {SIZE // 1_000_000} MB over 2 connections, MB a second taken")
    print(f"  {ours}: {spread(rates[ours], '.0f')}   {stock}: {spread(rates[stock], '.0f')}   ratio {ratio:.2f}")
    return 0


def settle(sink: Sink) -> None:
    """Wait until the sink gets nothing more, so that no run pays for the one before."""
    seen = -1
    while seen != sink.received():
        seen = sink.received()
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
