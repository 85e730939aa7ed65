-- The log on PostgreSQL: events, head, receipts. Never rebuilt, never edited. The columns and names of postgres-es are
-- all there, so its stock repository reads any stream. COLLATE "C": keys are compared as bytes.

CREATE TABLE events (
  bucket         BIGINT NOT NULL,            -- 0 until a ledger has many
  position       BIGINT NOT NULL,            -- gapless, in commit order, from 1
  aggregate_type TEXT COLLATE "C" NOT NULL,  -- coupon, definition, shop
  aggregate_id   TEXT COLLATE "C" NOT NULL,  -- decimal
  sequence       BIGINT NOT NULL CHECK (sequence > 0),
  event_type     TEXT   NOT NULL,
  event_version  TEXT   NOT NULL,
  payload        JSON   NOT NULL,            -- json keeps its text byte for byte; jsonb would not
  metadata       JSON   NOT NULL,            -- a flat map of strings
  recorded_at_ms BIGINT NOT NULL,            -- set under the head lock, never goes back
  PRIMARY KEY (aggregate_type, aggregate_id, sequence, bucket),
  UNIQUE (bucket, position)                  -- followers and as-of read by it
);

-- One row per bucket, locked by whoever writes the log. Hot: many versions of it must fit into its one page.
CREATE TABLE log_head (
  bucket   BIGINT NOT NULL PRIMARY KEY,
  position BIGINT NOT NULL,                  -- of the last event
  last_ms  BIGINT NOT NULL,                  -- recorded_at_ms of the last event
  epoch    BIGINT NOT NULL                   -- which version of the live read models is written
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
INSERT INTO log_head (bucket, position, last_ms, epoch) VALUES (0, 0, 0, 1);

-- Idempotency keys that were used up, kept for ever. They hold no answer: it is rendered again from the events.
CREATE TABLE receipts (
  bucket      BIGINT NOT NULL,
  caller      TEXT COLLATE "C" NOT NULL,
  operation   TEXT COLLATE "C" NOT NULL,
  key         TEXT COLLATE "C" NOT NULL,
  request_mac TEXT   NOT NULL,               -- HMAC of the request under a key outside the database
  position    BIGINT NOT NULL,               -- the first event
  event_count BIGINT NOT NULL,
  PRIMARY KEY (bucket, caller, operation, key)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% are append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER events_are_append_only BEFORE UPDATE OR DELETE ON events
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipts_are_append_only BEFORE UPDATE OR DELETE ON receipts
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER receipts_are_not_truncated BEFORE TRUNCATE ON receipts
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
