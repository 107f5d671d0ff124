"""Measures how long urgent mail waits behind a hundred thousand newsletters, at SES's pace: seconds from 250 to its attempt.

The newsletters are put into the queue beforehand; then the relay starts, and password resets of the same site and mail of
another site come in by SMTP, one at a time. What is printed is the wait of each, and what the pace alone makes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fakes import FakeClock
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport
from sesrelay.mail.delivery import LaneKey, Priority
from spool_world import opened, submission

LANE = LaneKey("ses-main", f"ses/us-east-1/{KEY}")
SITE = "example.com"


async def fill(folder: Path, messages: int) -> None:
    now = time.time() - 120.0
    spool = await opened(folder, FakeClock(now))
    for start in range(0, messages, 1000):
        made = (
            submission(
                serial, lane=LANE, priority=Priority.LOW, site=SITE, sender=f"news@{SITE}", accepted=now + serial * 0.0005, due=now
            )
            for serial in range(start, start + 1000)
        )
        await asyncio.gather(*(spool.accept(each) for each in made))
    await spool.close()


def waited(relay: Relay, queue_id: str) -> float:
    relay.ended(queue_id)
    times = {event["event"]: event for event in relay.trace(queue_id)["events"]}
    ended = datetime.fromisoformat(times["attempt"]["time"]).timestamp() - times["attempt"]["duration"]
    return ended - datetime.fromisoformat(times["accepted"]["time"]).timestamp()


def main() -> int:
    """Fill a queue, start the relay before it, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000, help="newsletters that wait (100000)")
    parser.add_argument("--rate", type=int, default=14, help="recipients a second (14)")
    parser.add_argument("--tries", type=int, default=20, help="urgent messages of each kind (20)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir="/var/tmp") as name, StandIn({"keys": {KEY: SECRET}}) as ses:
        folder = Path(name)
        way = ses_transport("ses-main", ses.url).replace("}", f", rate: {args.rate}}}")
        relay = Relay(
            folder,
            f"transports:\n{way}\ndefault_route: {{transport: ses-main}}\n"
            f"routes:\n- {{sender: {SITE}, transport: ses-main}}\n- {{sender: news@{SITE}, transport: ses-main, priority: low}}\n"
            f"- {{sender: other.example, transport: ses-main}}",
        )
        (folder / "state").mkdir()
        asyncio.run(fill(folder / "state", args.messages))
        began = time.monotonic()
        with relay:
            ready = time.monotonic() - began
            for kind, sender in (("reset", f"reset@{SITE}"), ("other site", "a@other.example")):
                waits = [waited(relay, relay.submit(sender, "somebody@example.org")) for _ in range(args.tries)]
                print(
                    f"{kind:<11} waited {min(waits):.3f}-{statistics.median(waits):.3f}-{max(waits):.3f} s behind "
                    f"{args.messages} (pace alone: up to {1 / args.rate:.3f} s); ready in {ready:.2f} s"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
