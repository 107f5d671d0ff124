"""A newer version takes over a full queue whole, wherever it is killed on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw

from fakes import FakeClock
from sesrelay.mail.delivery import State
from sesrelay.seams import Filter
from sesrelay.spool.migrations import STEPS, migrate
from sesrelay.spool.records import counted_for, pack, written
from spool_world import MX, NOW, SES, opened, submission

KILLER = Path(__file__).with_name("upgrade_killer.py")
COUNT = 400
STATES = (State.QUEUED, State.QUEUED, State.IN_FLIGHT, State.HELD)


def store_of_version_1(state: Path) -> list[str]:
    """Make the store that version 1 left, with mail in every open state; return the queue ids."""
    state.mkdir()
    db = apsw.Connection(str(state / "queue.db"))
    db.pragma("auto_vacuum", 2)
    db.pragma("journal_mode", "wal")
    migrate(db, "queue.db", STEPS[:1])
    columns = [row[1] for row in db.execute("PRAGMA table_info(delivery)")]
    with db:
        for serial in range(COUNT):
            made = submission(serial, lane=MX if serial % 3 else SES, state=STATES[serial % 4])
            packed = pack(made, in_file=False)
            db.execute("INSERT INTO message VALUES (?,?,?,?,?,?,?,?)", written(packed.message))
            db.execute("INSERT INTO content VALUES (?, ?)", (packed.number, packed.content))
            wanted = ", ".join(columns[:16])
            db.execute(f"INSERT INTO delivery ({wanted}) VALUES ({','.join('?' * 16)})", packed.deliveries[0][:16])
            db.execute(
                "INSERT INTO backlog VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1", counted_for(packed.deliveries[0])
            )
        db.execute("UPDATE total SET n = ? WHERE what = 'messages'", (COUNT,))
        db.execute("UPDATE total SET n = (SELECT sum(size) FROM message) WHERE what = 'bytes'")
    db.close()
    return [submission(serial).message.id for serial in range(COUNT)]


async def test_an_upgrade_killed_anywhere_keeps_each_message_once(tmp_path: Path) -> None:
    ids = store_of_version_1(tmp_path / "old")
    done = subprocess.run([sys.executable, str(KILLER), str(tmp_path)], capture_output=True, text=True, timeout=100, check=True)
    lives = [line.split() for line in done.stdout.splitlines()]
    assert lives[-1][0] == "writes"
    assert len(lives) > 12, done.stdout
    met = [int(life[2]) for life in lives[:-1]]
    assert set(met) <= {1, len(STEPS)}, "whole or not at all"
    assert met == sorted(met)
    assert met[0] == 1
    for life in (lives[0], lives[len(lives) // 2], lives[-2]):
        spool = await opened(tmp_path / f"life-{life[1]}", FakeClock(NOW + 9_000))
        open_ = await spool.list(Filter(), NOW, None, 9_999)
        assert [each.delivery.id.message for each in open_] == ids
        assert [each.delivery.state for each in open_] == [STATES[n % 4] for n in range(COUNT)]
        claimed = [each.id for lane in (SES, MX) for each in (await spool.claim(lane, 9_999, NOW + 9_000)).deliveries]
        assert len(claimed) == len(set(claimed)) == COUNT // 2
        assert (await spool.stats()).messages == COUNT
        await spool.close()
