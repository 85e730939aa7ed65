-- How far webhooks are. Operational, not the log: a ledger that is made of an export has none of it and sends nothing, until
-- somebody says from where on. What is lost here is told again.
CREATE TABLE webhook_lanes (
  bucket           BIGINT NOT NULL,
  webhook_id       BIGINT NOT NULL,
  lane             BIGINT NOT NULL,          -- 0 = what comes; the others each a range that is sent once more
  position         BIGINT NOT NULL,          -- all up to it was taken or given up
  until_position   BIGINT NOT NULL,          -- the last of the range; 0 = there is no last
  attempts         BIGINT NOT NULL,          -- how often the next event was tried in vain
  failing_since_ms BIGINT NOT NULL,
  next_at_ms       BIGINT NOT NULL,          -- not before then
  last_error       TEXT   NOT NULL,
  PRIMARY KEY (bucket, webhook_id, lane)
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Events that were given up, until they are taken after all.
CREATE TABLE webhook_dead (
  bucket         BIGINT NOT NULL,
  webhook_id     BIGINT NOT NULL,
  position       BIGINT NOT NULL,
  stream         TEXT   NOT NULL,            -- coupon/439
  event_type     TEXT   NOT NULL,
  attempts       BIGINT NOT NULL,
  last_error     TEXT   NOT NULL,
  failed_at_ms   BIGINT NOT NULL,            -- when it was first tried in vain
  given_up_at_ms BIGINT NOT NULL,
  PRIMARY KEY (bucket, webhook_id, position)
)
-- sqlite: STRICT, WITHOUT ROWID
;
