-- How many coupons of a definition a member has been issued and not had voided; gifts received do not count.
-- A counter: checked under the head lock against the definition's limit.
CREATE TABLE member_counts_v1 (
  bucket        BIGINT NOT NULL,
  member_id     BIGINT NOT NULL,
  definition_id BIGINT NOT NULL,
  issued        BIGINT NOT NULL,
  PRIMARY KEY (bucket, member_id, definition_id)
)
-- sqlite: STRICT, WITHOUT ROWID
-- postgres: WITH (fillfactor = 70)
;
