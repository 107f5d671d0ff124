"""Measures how fast large messages come in: ours as a whole relay, beside aiosmtpd as it is, which keeps nothing; and what
memory a crowd of them needs, all coming in at once and going out at once, by SMTP and to SES.

Prints min-median-max of MB a second over the rounds, which alternate, and the ratio of the medians; then a line a way out.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import spread
from procs import resident
from relays import Running, Sesrelay, Sink, free_port, launch
from ses import SesSink, ToSesByV2

SIZE = 10_000_000
CROWD_SIZE = 25_000_000
CROWD_PATIENCE = 300.0  # seconds for the whole crowd to come in and to have gone out
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
    parser.add_argument("--crowd", type=int, default=50, help="messages of 25 MB that come at once (50; 0: none)")
    parser.add_argument("--folder", default="/var/tmp", help="where the queue is (%(default)s)")
    args = parser.parse_args()
    source = peers.find("smtp-source")
    if source is None or peers.find("smtp-sink") is None:
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    if args.rounds:
        throughput(args.rounds, args.messages, args.folder, source)
    for kind in (Sesrelay(), ToSesByV2()) if args.crowd else ():
        crowd(kind, args.crowd, args.folder)
    return 0


def throughput(rounds: int, messages: int, where: str, source: peers.Program) -> None:
    """Print how fast large messages come in."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=where) as folder:
        (Path(folder) / "sink").mkdir()
        sink = Sink(Path(folder) / "sink")
        running: list[Running] = []
        try:
            for kind in (Sesrelay(), StockAiosmtpd()):
                (Path(folder) / kind.name).mkdir()
                running.append(kind.start(Path(folder) / kind.name, free_port(), sink.port))
            for _ in range(rounds):
                for relay in running:
                    began = time.perf_counter()
                    subprocess.run(
                        source.command(
                            "-d", "-s", "2", "-m", str(messages), "-l", str(SIZE),
                            "-f", "bench@example.com", "-t", "someone@example.net", f"127.0.0.1:{relay.port}",
                        ),
                        env=dict(source.env), check=True, capture_output=True,
                    )  # fmt: skip
                    rates.setdefault(relay.name, []).append(messages * SIZE / 1e6 / (time.perf_counter() - began))
                    settle(sink)
        finally:
            for relay in running:
                relay.stop()
            sink.stop()
    ours, stock = rates
    ratio = statistics.median(rates[ours]) / statistics.median(rates[stock])
    print(f"{messages} messages of {SIZE // 1_000_000} MB over 2 connections, MB a second taken")
    print(f"  {ours}: {spread(rates[ours], '.0f')}   {stock}: {spread(rates[stock], '.0f')}   ratio {ratio:.2f}")


def crowd(kind: Sesrelay | ToSesByV2, messages: int, where: str) -> None:
    """Print what memory one relay needs at most while so many large messages come at once, and go out at once."""
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=where) as folder:
        for part in ("sink", "relay"):
            (Path(folder) / part).mkdir()
        to_ses = isinstance(kind, ToSesByV2)
        sink = SesSink() if to_ses else Sink(Path(folder) / "sink")
        relay = kind.start(Path(folder) / "relay", free_port(), sink.port)
        try:
            idle = resident(relay.pid, "VmRSS")
            body = b"\r\n".join([b"Subject: large", b"From: bench@example.com", b"", *[b"x" * 74] * (CROWD_SIZE // 76), b"."])
            began = time.perf_counter()
            with ThreadPoolExecutor(messages) as pool:
                turned_away = sum(pool.map(lambda _: send(relay.port, body), range(messages)))
            taken = time.perf_counter() - began
            peak_in = resident(relay.pid, "VmHWM")
            while sink.received() < messages and time.perf_counter() - began < CROWD_PATIENCE:
                time.sleep(0.2)
            gone = time.perf_counter() - began
            print(f"{messages} messages of {len(body) / 1e6:.0f} MB at once, out {'to SES' if to_ses else 'by SMTP'}")
            print(f"  taken after {taken:.1f} s (452 said {turned_away} times), {sink.received()} gone after {gone:.1f} s")
            print(
                f"  resident MiB: idle {idle:.0f}, peak while they came {peak_in:.0f}, peak in all {resident(relay.pid, 'VmHWM'):.0f}"
            )
        finally:
            relay.stop()
            sink.stop()


def send(port: int, body: bytes) -> int:
    """Hand in one message, however often it is told to try again; return how often that was."""
    turned_away = 0
    while True:
        with socket.create_connection(("127.0.0.1", port), 120) as sock:
            said = sock.makefile("rb")
            for command in (
                b"", b"HELO bench.example.com\r\n", b"MAIL FROM:<bench@example.com>\r\n", b"RCPT TO:<someone@example.net>\r\n",
                b"DATA\r\n", body + b"\r\n",
            ):  # fmt: skip
                sock.sendall(command)
                reply = said.readline()
                if not reply.startswith((b"2", b"3")):
                    break
            else:
                return turned_away
        if not reply.startswith(b"4"):
            raise RuntimeError(f"the relay said {reply!r}")
        turned_away += 1
        time.sleep(0.5)


def settle(sink: Sink) -> None:
    """Wait until the sink gets nothing more, so that no run pays for the one before."""
    seen = -1
    while seen != sink.received():
        seen = sink.received()
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
