"""The tables: as version 1 made them, and what each later version changed.

A message's key is the number behind its queue id, so tables are in order of arrival. A delivery is keyed by message
and place in the envelope. Content is apart, so that it goes without the message's row being written again.

`delivery_claim` finds the next of a lane; `delivery_open` lists what has not ended, by state and transport, in order
of arrival. Both are partial: what has ended costs them nothing.

Invariant: `backlog` and `total` change in the transactions that change what they count.
"""

from __future__ import annotations

APPLICATION_ID = 0x53455352  # "SESR": tells our file from any other SQLite database
VERSION = 3

TABLES_1 = """
CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  accepted REAL NOT NULL,
  size INTEGER NOT NULL,
  sender TEXT NOT NULL,       -- normalised, for filters
  message_id TEXT NOT NULL,   -- as the header has it
  stored INTEGER NOT NULL,    -- where the content is: 0 in table content, 1 in a file
  head TEXT NOT NULL,         -- JSON: envelope, origin and what else is told of it
  events TEXT NOT NULL        -- JSON: those of the acceptance
);
CREATE INDEX message_by_message_id ON message (message_id) WHERE message_id <> '';

CREATE TABLE content (message INTEGER PRIMARY KEY, body BLOB NOT NULL);

CREATE TABLE delivery (
  message INTEGER NOT NULL,
  n INTEGER NOT NULL,
  state INTEGER NOT NULL,     -- 0 queued, 1 in flight, 2 held, 3 delivered, 4 failed
  transport TEXT NOT NULL,
  nexthop TEXT NOT NULL,
  priority INTEGER NOT NULL,
  due REAL NOT NULL,
  attempts INTEGER NOT NULL,
  doubts INTEGER NOT NULL,
  warned INTEGER NOT NULL,
  route TEXT NOT NULL,
  site TEXT NOT NULL,
  recipient TEXT NOT NULL,    -- normalised, for filters
  pinned TEXT,
  reason TEXT,
  reply TEXT,
  "end" TEXT,
  remote_id TEXT,
  wish TEXT,                  -- what an operator wants of it once its attempt ends
  PRIMARY KEY (message, n)
) WITHOUT ROWID;
CREATE INDEX delivery_claim ON delivery (transport, nexthop, priority, due, message, n) WHERE state = 0;
CREATE INDEX delivery_open ON delivery (state, transport, message, n) WHERE state < 3;
CREATE INDEX delivery_by_remote_id ON delivery (remote_id) WHERE remote_id IS NOT NULL;

CREATE TABLE event (
  message INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  items TEXT NOT NULL,        -- JSON: all events of one operation
  PRIMARY KEY (message, seq)
) WITHOUT ROWID;

CREATE TABLE backlog (
  transport TEXT NOT NULL,
  nexthop TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (transport, nexthop, priority, state)
) WITHOUT ROWID;

CREATE TABLE total (what TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO total VALUES ('messages', 0), ('bytes', 0);
"""

TABLES_2 = """
-- Who goes next within a lane and a priority is decided between sites.
DROP INDEX delivery_claim;
CREATE INDEX delivery_claim ON delivery (transport, nexthop, priority, site, due, message, n) WHERE state = 0;

-- Of how many messages a digest tells.
CREATE TABLE digest (message INTEGER PRIMARY KEY, n INTEGER NOT NULL);

-- The way out that an operator chose for it.
ALTER TABLE delivery ADD COLUMN via TEXT;

-- What a route that has a cap has sent, by five minutes.
CREATE TABLE sent (
  site TEXT NOT NULL,
  slot INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (site, slot)
) WITHOUT ROWID;
"""

TABLES_3 = """
-- What operators want held as it comes; `filter` is JSON in one form, so that the same wish stands once.
CREATE TABLE standing_hold (filter TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
"""
