"""What operators do to deliveries: each verb on many at once, in statements whose number does not grow with them.

Invariant: what a verb does to which state is asked of `wishes`, for each state and wish that is met; SQL only carries it out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sesrelay.mail.delivery import State
from sesrelay.policy.scheduling import SCHEDULED
from sesrelay.seams import Verb
from sesrelay.spool import wishes
from sesrelay.spool.matching import Match
from sesrelay.spool.query import rows, the_row
from sesrelay.spool.records import CODE, HELD, STATES, Key, event_rows
from sesrelay.spool.transaction import Transaction

PICKED = (
    "CREATE TEMP TABLE IF NOT EXISTS picked (message INTEGER NOT NULL, n INTEGER NOT NULL, state INTEGER NOT NULL, "
    "transport TEXT NOT NULL, nexthop TEXT NOT NULL, priority INTEGER NOT NULL, wish TEXT, PRIMARY KEY (message, n)) WITHOUT ROWID"
)
CLEAR = "DELETE FROM temp.picked"
PICK = (
    "INSERT INTO temp.picked SELECT d.message, d.n, d.state, d.transport, d.nexthop, d.priority, "
    f"CASE d.state WHEN {CODE[State.IN_FLIGHT]} THEN d.wish END "
    "FROM json_each(?) AS k CROSS JOIN delivery AS d WHERE d.message = k.value ->> 0 AND d.n = k.value ->> 1"
)
MET = "SELECT state, wish, count(*) FROM temp.picked GROUP BY state, wish"
SPARE = "DELETE FROM temp.picked WHERE state = ? AND wish IS ?"
SPARE_SCHEDULED = (
    f"DELETE FROM temp.picked AS p WHERE p.state = {CODE[State.QUEUED]} AND EXISTS (SELECT 1 FROM delivery AS d "
    f"WHERE d.message = p.message AND d.n = p.n AND d.reason = '{SCHEDULED}' AND d.due > ?)"
)
_OF_PICKED = " FROM temp.picked AS p WHERE delivery.message = p.message AND delivery.n = p.n"
WISH = "UPDATE delivery SET wish = ?" + _OF_PICKED + " AND p.state = ? AND p.wish IS ?"
_IN_DOUBT = f"delivery.pinned IS NOT NULL AND (delivery.state <> {HELD} OR delivery.reason = '{wishes.HELD_BY_OPERATOR}')"
"""See `entries.stays`."""
VIA = (
    f"UPDATE delivery SET via = CASE WHEN {_IN_DOUBT} THEN delivery.via ELSE ? END, "
    f"pinned = CASE WHEN {_IN_DOUBT} THEN delivery.pinned END" + _OF_PICKED
)
HOLD = "UPDATE delivery SET state = 2, reason = 'operator', due = ?" + _OF_PICKED
_AT = (
    "coalesce((SELECT json_extract(e.value, '$.release') FROM message AS m, json_each(m.head) AS e "
    "WHERE m.id = delivery.message AND e.type = 'object'), 0)"
)
"""The hour for which it is scheduled: see records._head."""
RELEASE = (
    f"UPDATE delivery SET state = 0, doubts = 0, due = max(?1, {_AT}), reason = CASE WHEN {_AT} > ?1 THEN '{SCHEDULED}' END"
    + _OF_PICKED
)
RETRY = "UPDATE delivery SET due = ?" + _OF_PICKED
DELETE = "UPDATE delivery SET state = 4, reason = 'deleted', due = ?" + _OF_PICKED
STATEMENTS: dict[Verb, str] = {"hold": HOLD, "release": RELEASE, "retry": RETRY, "delete": DELETE}
COUNTS = "SELECT transport, nexthop, priority, state, count(*) FROM temp.picked GROUP BY transport, nexthop, priority, state"
TELL = (
    "INSERT INTO event (message, seq, items) SELECT p.message, "
    "(SELECT coalesce(max(seq), 0) + 1 FROM event WHERE event.message = p.message), "
    "json_group_array(json_set(?, '$[2]', coalesce(json_extract(m.head, '$[1][' || p.n || '][0]'), "
    "json_extract(m.head, '$[1][' || p.n || ']')), '$[3]', p.transport, '$[4]', p.nexthop) ORDER BY p.n) "
    "FROM temp.picked AS p CROSS JOIN message AS m ON m.id = p.message GROUP BY p.message"
)
"""A recipient is an address, or a list that begins with it: see records._recipient."""
_ENDED = (
    " (SELECT DISTINCT p.message FROM temp.picked AS p WHERE NOT EXISTS "
    "(SELECT 1 FROM delivery WHERE delivery.message = p.message AND delivery.state < 3)) AS gone"
)
TOTAL_ENDED = "SELECT count(*), coalesce(sum(m.size), 0) FROM" + _ENDED + " CROSS JOIN message AS m ON m.id = gone.message"
IN_FILES = "SELECT m.id FROM" + _ENDED + " CROSS JOIN message AS m ON m.id = gone.message WHERE m.stored = 1"
FORGET = "DELETE FROM content WHERE message IN (SELECT message FROM" + _ENDED + ")"


def change(tx: Transaction, verb: Verb, match: Match, keys: Sequence[Key], now: float, via: str | None = None) -> int:
    """Do `verb` to those of `keys` that are still as `match` has them; return how many that changes."""
    cursor = tx.cursor
    cursor.execute(PICKED)
    cursor.execute(CLEAR)
    cursor.execute(PICK + _still(match), (json.dumps(keys), *([] if match.transport is None else [match.transport])))
    changed = 0
    after: State | None = None
    keeps_hours = verb == "retry" and match.ids is None
    if keeps_hours and via is None:
        cursor.execute(SPARE_SCHEDULED, (now,))
    for code, wish, count in rows(cursor, MET):
        decision = wishes.decide(verb, STATES[code], wish)
        if decision is None:
            cursor.execute(SPARE, (code, wish))
            continue
        changed += count
        if decision.state is State.IN_FLIGHT:
            cursor.execute(WISH, (decision.wish, code, wish))
        else:
            after = decision.state
    if via is not None:
        cursor.execute(VIA, (via,))
        if keeps_hours:  # what is scheduled has another way by now, and that is all
            cursor.execute(SPARE_SCHEDULED, (now,))
    if after is not None:
        cursor.execute("DELETE FROM temp.picked WHERE state = ?", (CODE[State.IN_FLIGHT],))
        _carry_out(tx, verb, after, now)
    return changed


def _still(match: Match) -> str:
    """Return what may have changed since the keys were found."""
    codes = ",".join(str(CODE[state]) for state in sorted(match.states))
    return f" AND d.state IN ({codes})" + ("" if match.transport is None else " AND d.transport = ?")


def _carry_out(tx: Transaction, verb: Verb, after: State, now: float) -> None:
    """Do to all that is picked what `verb` does at once; it comes to the same state, whatever it comes from."""
    cursor, code = tx.cursor, CODE[after]
    cursor.execute(STATEMENTS[verb], (now,))
    for transport, nexthop, priority, before, count in rows(cursor, COUNTS):
        tx.tally.move(transport, nexthop, priority, before, code, count)
    (event,) = event_rows((wishes.event(verb, now, "", "", ""),))
    cursor.execute(TELL, (json.dumps(event),))
    if code > HELD:
        messages, octets = the_row(cursor, TOTAL_ENDED)
        tx.tally.message(-messages, -octets)
        tx.ended += [number for (number,) in rows(cursor, IN_FILES)]
        cursor.execute(FORGET)
