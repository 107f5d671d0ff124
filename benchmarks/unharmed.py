"""Sends thousands of messages that are easily harmed to a real Postfix and a real Exim, by a relay's route and by MX.

Prints for each next hop how many it took, and the first that are missing, twice there, changed or not signed; exits 1 where one is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from next_hops import HOPS, SENDERS, corpus, journey

SHOWN = 20  # lines of what went wrong at one next hop


def main() -> int:
    """Run them and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=1000, help="at least so many to each (1000)")
    args = parser.parse_args()
    rounds = -(-args.messages // (len(corpus()) * len(SENDERS)))
    failed = False
    for kind in HOPS:
        reason = kind.unavailable()
        if reason is not None:
            print(f"without {kind.name}: {reason}", file=sys.stderr)
            continue
        with kind() as hop, tempfile.TemporaryDirectory(prefix="sesrelay-bench-") as folder:
            began = time.monotonic()
            sent, wrong = journey(hop, Path(folder), rounds)
            print(f"{kind.name}: {sent} messages, {len(wrong)} harmed or lost, {time.monotonic() - began:.0f} s", flush=True)
        for line in wrong[:SHOWN]:
            print(f"  {line}")
        failed = failed or bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
