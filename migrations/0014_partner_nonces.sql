-- Nonces of partners' signed requests that were accepted: each is good once. The row goes when the time that was signed with
-- it cannot be accepted any more.
CREATE TABLE partner_nonces (
  partner_id    BIGINT NOT NULL,
  nonce         TEXT   NOT NULL,
  lapses_at_ms  BIGINT NOT NULL,
  PRIMARY KEY (partner_id, nonce)
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- The sweep walks those that have lapsed.
CREATE INDEX partner_nonces_by_lapse ON partner_nonces (lapses_at_ms);
