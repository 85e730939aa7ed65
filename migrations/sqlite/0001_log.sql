-- The log on SQLite: events, head, receipts, ids. Never rebuilt, never edited.
-- STRICT with TEXT: a column declared json would turn 1.0 into 1, and payload bytes are what is hashed.

CREATE TABLE events (
  bucket         INTEGER NOT NULL,           -- 0 until a ledger has many
  position       INTEGER NOT NULL,           -- gapless, in commit order, from 1
  aggregate_type TEXT    NOT NULL,           -- coupon, definition, shop
  aggregate_id   TEXT    NOT NULL,           -- decimal
  sequence       INTEGER NOT NULL CHECK (sequence > 0),
  event_type     TEXT    NOT NULL,
  event_version  TEXT    NOT NULL,
  payload        TEXT    NOT NULL,           -- JSON, byte for byte as serialised
  metadata       TEXT    NOT NULL,           -- a flat map of strings
  recorded_at_ms INTEGER NOT NULL,           -- set under the head lock, never goes back
  PRIMARY KEY (aggregate_type, aggregate_id, sequence, bucket),
  UNIQUE (bucket, position)                  -- followers and as-of read by it
) STRICT;

-- One row per bucket. Whoever writes the log holds it.
CREATE TABLE log_head (
  bucket   INTEGER NOT NULL PRIMARY KEY,
  position INTEGER NOT NULL,                 -- of the last event
  last_ms  INTEGER NOT NULL,                 -- recorded_at_ms of the last event
  epoch    INTEGER NOT NULL                  -- which version of the live read models is written
) STRICT;
INSERT INTO log_head (bucket, position, last_ms, epoch) VALUES (0, 0, 0, 1);

-- Idempotency keys that were used up, kept for ever. They hold no answer: it is rendered again from the events.
CREATE TABLE receipts (
  bucket      INTEGER NOT NULL,
  caller      TEXT    NOT NULL,
  operation   TEXT    NOT NULL,
  key         TEXT    NOT NULL,
  request_mac TEXT    NOT NULL,              -- HMAC of the request under a key outside the database
  position    INTEGER NOT NULL,              -- the first event
  event_count INTEGER NOT NULL,
  PRIMARY KEY (bucket, caller, operation, key)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER events_are_append_only_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_append_only_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
-- INSERT OR REPLACE deletes without firing the trigger above where recursive_triggers is off: refuse it by what it meets.
CREATE TRIGGER events_are_append_only_replace BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE bucket = NEW.bucket AND position = NEW.position)
  OR EXISTS (SELECT 1 FROM events WHERE aggregate_type = NEW.aggregate_type AND aggregate_id = NEW.aggregate_id
             AND sequence = NEW.sequence AND bucket = NEW.bucket)
  -- A REPLACE on the hidden rowid alone: -1 where the statement names none.
  OR EXISTS (SELECT 1 FROM events WHERE rowid = NEW.rowid)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER receipts_are_append_only_update BEFORE UPDATE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END;
CREATE TRIGGER receipts_are_append_only_delete BEFORE DELETE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END;
CREATE TRIGGER receipts_are_append_only_replace BEFORE INSERT ON receipts
WHEN EXISTS (SELECT 1 FROM receipts WHERE bucket = NEW.bucket AND caller = NEW.caller
             AND operation = NEW.operation AND key = NEW.key)
BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END;
