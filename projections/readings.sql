-- Whose personal data was read by which reading, a pure function of the reading's state (src/read_model/readings.rs,
-- reading_rows): an index over the log, so that asking who has read somebody walks none of it. By whom and through what is in
-- the reading's own event. Read by /v1/readers and `coupon-ledger history --readers`.
CREATE TABLE readings_v1 (
  bucket      BIGINT NOT NULL,
  person_kind BIGINT NOT NULL,               -- 0 member, 1 employee, 2 account
  person_id   BIGINT NOT NULL,
  reading_id  BIGINT NOT NULL,
  at_ms       BIGINT NOT NULL,
  -- By the person: his readings are one walk.
  PRIMARY KEY (bucket, person_kind, person_id, reading_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
