-- Stock: a counter per definition, what one stream cannot know. Moves by counts(after) - counts(before) in the append's
-- transaction and is checked under the head lock. issued = coupons of the definition that are issued and not voided.
-- A partner's allotment has a row of its own under the negative of its id: so many of it may be taken, so many are.
CREATE TABLE stock_v1 (
  bucket        BIGINT NOT NULL,
  definition_id BIGINT NOT NULL,
  stock         BIGINT NOT NULL,             -- how many may be issued in all; -1 = unlimited
  issued        BIGINT NOT NULL,
  PRIMARY KEY (bucket, definition_id)
)
-- sqlite: STRICT, WITHOUT ROWID
-- postgres: WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0)
;
