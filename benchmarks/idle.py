"""Measures what the daemon costs before it has anything to do: the time until it is ready, and its memory when idle.

One route through SES, before the strict stand-in; each figure min-median-max over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from procs import resident
from relays import answers, free_port

SETTLE = 3.0  # seconds after which the account's figures are there and nothing more is started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    stand_in = subprocess.Popen([sys.executable, "-m", "sesrelay.testing.ses"], stdout=subprocess.PIPE, text=True)
    try:
        assert stand_in.stdout is not None
        url = stand_in.stdout.readline().split()[1]
        samples = [once(url) for _ in range(rounds)]
    finally:
        stand_in.terminate()
    for name, values, unit in (
        ("ready after", [s[0] for s in samples], "s"),
        ("idle memory (RSS)", [s[1] for s in samples], "MiB"),
    ):
        print(f"{name:<20} {min(values):.2f}-{statistics.median(values):.2f}-{max(values):.2f} {unit}")
    return 0


def once(url: str) -> tuple[float, float]:
    """Start one daemon; return the seconds until /readyz answers 200, and its resident MiB when it has settled."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder) / "config.yaml"
        config.touch(mode=0o600)
        config.write_text(
            f"state_dir: {folder}/state\ncontrol: {folder}/control.sock\nlisteners: [{{listen: '127.0.0.1:0'}}]\n"
            f"http: {{listen: '127.0.0.1:{port}'}}\nlog: {{level: warning}}\n"
            f"transports:\n  ses: {{type: ses, region: us-east-1, endpoint_url: '{url}', access_key_id: AKIASTANDIN, secret_access_key: s}}\n"
            "default_route: {transport: ses}\n"
        )
        began = time.monotonic()
        daemon = subprocess.Popen([sys.executable, "-m", "sesrelay", "run", "--config", str(config)])
        try:
            while not answers(f"http://127.0.0.1:{port}/readyz"):
                time.sleep(0.005)
            ready = time.monotonic() - began
            time.sleep(SETTLE)
            return ready, resident(daemon.pid, "VmRSS")
        finally:
            daemon.terminate()
            daemon.wait()


if __name__ == "__main__":
    sys.exit(main())
