"""The questions that must stay cheap in a long queue are answered from an index: shown by the plan, not by a clock."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from sesrelay.mail.delivery import LaneKey
from sesrelay.spool import bulk, changing, desk, flow, oldest, reading, selecting, upkeep
from sesrelay.spool.claims import Claims
from sesrelay.spool.opening import open_store
from sesrelay.spool.query import sized
from sesrelay.spool.records import pack
from sesrelay.spool.tally import Tally
from sesrelay.spool.transaction import Transaction
from spool_world import submission

QUESTIONS = {
    "claim": (flow.CLAIM, "SEARCH delivery USING INDEX delivery_claim (transport=? AND nexthop=? AND priority=? AND site=?)"),
    "the next site of a lane": (
        flow.FIRST_SITE,
        "SEARCH delivery USING COVERING INDEX delivery_claim (transport=? AND nexthop=? AND priority=? AND site>?)",
    ),
    "first due by site": (
        flow.BY_SITE,
        "SEARCH delivery USING COVERING INDEX delivery_claim (transport=? AND nexthop=? AND priority=? AND site>?)",
    ),
    "what is open, in order": (
        reading.OPEN_PAGE,
        "SEARCH delivery USING COVERING INDEX delivery_open (state=? AND transport=? AND (message,n)>(?,?))",
    ),
    "how far to look among what is open": (
        selecting.BOUNDARY.format(run=selecting.OPEN_RUN, where=selecting.OPEN),
        "SEARCH d USING COVERING INDEX delivery_open (state=? AND transport=? AND (message,n)>(?,?))",
    ),
    "how far to look among all": (
        selecting.BOUNDARY.format(run=selecting.ALL_RUN, where=""),
        "SEARCH d USING PRIMARY KEY ((message,n)>(?,?))",
    ),
    "what of the open is meant": (
        selecting.SELECT.format(run=selecting.OPEN_RUN + selecting.WITH_MESSAGE, where=selecting.OPEN, meant=" AND m.sender = ?"),
        "SEARCH d USING COVERING INDEX delivery_open (state=? AND transport=? AND (message,n)>(?,?) AND (message,n)<(?,?))",
    ),
    "what of all is meant": (
        selecting.SELECT.format(run=selecting.ALL_RUN + selecting.WITH_MESSAGE, where="", meant=" AND m.sender = ?"),
        "SEARCH d USING PRIMARY KEY ((message,n)>(?,?) AND (message,n)<(?,?))",
    ),
    "of one message": (
        selecting.SELECT.format(run=selecting.ALL_RUN, where=selecting.MESSAGE_RUN, meant=""),
        "SEARCH d USING PRIMARY KEY (message=?)",
    ),
    "a delivery": (flow.STANDING, "SEARCH delivery USING PRIMARY KEY (message=? AND n=?)"),
    "lanes": (flow.LANES, "SEARCH backlog USING PRIMARY KEY ((transport,nexthop)>(?,?))"),
    "by remote id": (
        desk.BY_REMOTE_ID,
        "SEARCH delivery USING COVERING INDEX delivery_by_remote_id (remote_id=?)",
    ),
    "what the maildrop has brought in": (desk.GREETINGS, "SEARCH message USING INDEX message_by_message_id (message_id=?)"),
    "by Message-ID": (desk.BY_MESSAGE_ID, "SEARCH message USING COVERING INDEX message_by_message_id (message_id=?)"),
    "the newest": (desk.RECENT, "SCAN message"),
    "what is not left to its hour": (
        oldest.MEANT,
        "SEARCH delivery USING INDEX delivery_open (state=? AND transport=? AND (message,n)>(?,?))",
    ),
    "what may be forgotten": (upkeep.FINISHED, "SEARCH message USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
}


@pytest.fixture
def db(tmp_path: Path) -> apsw.Connection:
    return open_store(tmp_path / "queue.db")


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_plan(db: apsw.Connection, question: str) -> None:
    statement, wanted = QUESTIONS[question]
    bindings = (None,) * statement.count("?")
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings).fetchall()]
    assert wanted in plan
    # A sort would read all of a lane or a queue before it gives the first row.
    if question != "by Message-ID":
        assert not [line for line in plan if "TEMP B-TREE" in line]


def test_lanes_of_many_sites_are_looked_at_a_few_at_a_time(db: apsw.Connection) -> None:
    tx = Transaction(db, Claims(), Tally(db))
    with db:
        for serial in range(40 * 50):
            made = submission(serial, lane=LaneKey("direct", f"d{serial // 50:02}.example"), site=f"s{serial % 50}")
            flow.accept(tx, pack(made, in_file=False), False)
    steps: list[int] = []
    found, after = 0, None
    while after is not None or not steps:
        asked: list[object] = []
        db.set_exec_trace(lambda _, sql, __, asked=asked: asked.append(sql) or True)
        page, after = flow.lanes(tx, after)
        db.set_exec_trace(None)
        steps.append(len(asked))
        found += len(page)
    assert found == 40
    assert max(steps) < flow.LANES_PAGE + 3 * 51


def test_the_end_of_a_message_is_seen_in_an_index(db: apsw.Connection) -> None:
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {flow.REMAINS}", (1,)).fetchall()]
    assert not [line for line in plan if line.startswith("SCAN delivery")]


@pytest.mark.parametrize(
    ("statement", "columns"),
    [(bulk.STANDINGS, 2), (bulk.OPEN, 8), (bulk.SETTLE, 15), (bulk.TELL, 2), (bulk.ENDED, 1), (bulk.FORGET, 1)],
)
def test_many_at_once_look_for_each_in_an_index(db: apsw.Connection, statement: str, columns: int) -> None:
    sql = sized(statement, 8, columns)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * 8 * columns).fetchall()]
    scanned = [
        line
        for line in plan
        if line.startswith("SCAN") and line.split()[1] in {"d", "m", "delivery", "message", "content", "event"}
    ]
    assert not scanned, plan


@pytest.mark.parametrize(
    "statement",
    [
        changing.PICK,
        changing.WISH,
        changing.VIA,
        *changing.STATEMENTS.values(),
        changing.SPARE_SCHEDULED,
        changing.TELL,
        changing.TOTAL_ENDED,
        changing.IN_FILES,
        changing.FORGET,
    ],
)
def test_a_change_looks_for_each_that_was_picked_in_an_index(db: apsw.Connection, statement: str) -> None:
    db.execute(changing.PICKED)
    bindings = (None,) * (1 if "?1" in statement else statement.count("?"))
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings).fetchall()]
    assert not [line for line in plan if line.startswith("SCAN") and line.split()[1] not in {"p", "k", "gone", "e"}], plan
