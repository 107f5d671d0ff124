"""Measures how long one client waits for its 250 while nine others send as fast as they are let, at each relay in turn.

A message's time runs from MAIL to the reply after its final dot, over a kept connection. Prints min-median-max of the
rounds' percentiles in milliseconds, and the ratio of our median to each peer's.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from accept import Bench, spread, start
from relays import RELAYS

BUSY = 9
WARM = 1.0  # seconds that the busy ones run before the one begins
BODY = b"Subject: one of many\r\n\r\n" + b"x" * 70 + b"\r\n"
COMMANDS = (b"MAIL FROM:<one@example.com>\r\n", b"RCPT TO:<someone@example.net>\r\n", b"DATA\r\n", BODY + b".\r\n")


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs for each relay (3)")
    parser.add_argument("--messages", type=int, default=1500, help="messages of the one client in a run (1500)")
    parser.add_argument("--folder", default="/var/tmp", help="where the queues are (%(default)s)")
    args = parser.parse_args()
    if not (peers.find("smtp-source") and peers.find("smtp-sink")):
        print("smtp-source and smtp-sink are wanted: `make peers` unpacks them where apt is", file=sys.stderr)
        return 69
    kinds = [kind for kind in (made() for made in RELAYS) if kind.unavailable() is None]
    p50: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    p99: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir=args.folder) as folder:
        Path(folder).chmod(0o711)  # Postfix's daemons are other users
        benches: list[Bench] = []
        try:
            for kind in kinds:
                benches.append(start(kind, Path(folder) / kind.name))
            for _ in range(args.rounds):
                for bench in benches:
                    times = sorted(beside_the_busy(bench.relay.port, args.messages))
                    p50[bench.relay.name].append(1000 * times[len(times) // 2])
                    p99[bench.relay.name].append(1000 * times[len(times) * 99 // 100])
                    drain(bench)
        finally:
            for bench in benches:
                bench.stop()
    print(f"one client beside {BUSY} busy ones: ms from MAIL to 250, {args.messages} messages, {args.rounds} rounds")
    for title, values in (("p50", p50), ("p99", p99)):
        ours, *others = values
        row = f"  {title:6}{ours}: {spread(values[ours], '.1f')}"
        for name in others:
            ratio = statistics.median(values[ours]) / statistics.median(values[name])
            row += f"   {name}: {spread(values[name], '.1f')}   ratio {ratio:.2f}"
        print(row)
    return 0


def beside_the_busy(port: int, messages: int) -> list[float]:
    """Return the seconds that each message of the one client took while the others were at it."""
    source = peers.find("smtp-source")
    assert source is not None
    busy = subprocess.Popen(
        source.command(
            "-d", "-s", str(BUSY), "-m", "1000000", "-l", "4096",
            "-f", "bench@example.com", "-t", "someone@example.net", f"127.0.0.1:{port}",
        ),
        env=dict(source.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(WARM)
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            replies = sock.makefile("rb")
            replies.readline()
            sock.sendall(b"HELO one.example.com\r\n")
            replies.readline()
            times = [one_message(sock, replies) for _ in range(messages)]
        if busy.poll() is not None:
            raise RuntimeError("the busy clients ended too soon")
        return times
    finally:
        busy.kill()
        busy.wait()


def one_message(sock: socket.socket, replies: object) -> float:
    """Send one message, each command when the reply to the one before is there. Raises: RuntimeError at a refusal."""
    began = time.perf_counter()
    for command in COMMANDS:
        sock.sendall(command)
        reply: bytes = replies.readline()  # type: ignore[attr-defined]
        if reply[:1] not in (b"2", b"3"):
            raise RuntimeError(f"refused: {reply!r}")
    return time.perf_counter() - began


def drain(bench: Bench) -> None:
    """Wait until the sink gets nothing more."""
    seen = -1
    while seen != bench.sink.received():
        seen = bench.sink.received()
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
