"""Hours of trouble: a relay killed at random under load, and a relay under load whose next hop fails one call in twenty.

Ends with 1 where a message was lost, or more came twice than kills explain. What ought to be flat is printed as its median
over the first and the last fifth of the time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import fields
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from onslaught import FIVE_PERCENT, Clients, Hop, SesHop, SmtpHop, Vital, finish, kill_at_random, relay_before, vitals

LIFE = 500  # kills in one state directory: the next hop keeps a journal, which is then thrown away with it


def kills(hop: type[SesHop] | type[SmtpHop], wanted: int, folder: Path) -> bool:
    """Kill `wanted` times; tell whether nothing was lost."""
    total = lost = twice = bound = acknowledged = 0
    restarts: list[float] = []
    while total < wanted:
        with hop() as next_hop, tempfile.TemporaryDirectory(dir=folder) as place:
            some = min(LIFE, wanted - total)
            found = kill_at_random(next_hop, Path(place), some, None, seed=total, say=partial(tell, total, wanted))
        total += some
        lost, twice, bound = lost + found.lost, twice + found.twice, bound + found.bound
        acknowledged += found.acknowledged
        restarts += found.restarts
    print(
        f"{total} kills before {hop.__name__}: {acknowledged} acknowledged, {lost} lost, {twice} twice "
        f"({bound} were in doubt after a kill); ready again after {statistics.median(restarts):.2f} s, at most {max(restarts):.2f} s",
        flush=True,
    )
    return lost == 0 and twice <= bound


def tell(before: int, wanted: int, n: int, acknowledged: int) -> None:
    print(f"  {before + n} of {wanted} kills, {acknowledged} acknowledged", file=sys.stderr, flush=True)


def load(minutes: float, folder: Path) -> bool:
    """Send for that long while one call in twenty fails; tell whether nothing was lost."""
    samples: list[Vital] = []
    hop: Hop
    with (
        SesHop(FIVE_PERCENT) as hop,
        tempfile.TemporaryDirectory(dir=folder) as place,
        relay_before(hop, Path(place), "queue: {retry: [1s, 2s, 5s]}") as (relay, port),
    ):
        clients = Clients(port, pause=0.05)
        clients.start()
        time.sleep(min(20.0, minutes * 6))
        until = time.monotonic() + minutes * 60
        while time.monotonic() < until:
            samples.append(vitals(relay))
            time.sleep(min(5.0, minutes * 6))
        clients.stop()
        hop.mend()
        finish(relay, 600)
        taken = hop.taken()
    lost = clients.acknowledged - set(taken)
    print(
        f"{minutes:g} minutes with 5 % faults: {len(clients.acknowledged)} acknowledged, {len(lost)} lost, "
        f"{len(taken) - len(set(taken))} twice (answers that were lost), {sum(clients.refused.values())} refused"
    )
    fifth = max(len(samples) // 5, 1)
    for each in fields(Vital):
        first, last = (statistics.median(getattr(one, each.name) for one in part) for part in (samples[:fifth], samples[-fifth:]))
        print(f"  {each.name:<12}{first:8.1f} -> {last:8.1f}, at most {max(getattr(one, each.name) for one in samples):.1f}")
    return not lost


def main() -> int:
    """Run both, for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10_000, help="before each kind of next hop, SES and SMTP (%(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load with faults (%(default)s)")
    parser.add_argument("--folder", default="/var/tmp", help="where the queues are (%(default)s)")
    given = parser.parse_args()
    folder = Path(given.folder)
    fine = load(given.minutes, folder) if given.minutes else True
    for hop in (SesHop, SmtpHop) if given.kills else ():
        fine = kills(hop, given.kills, folder) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
