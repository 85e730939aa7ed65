-- Grants: so many coupons of a definition, by what earns them; a pure function of the grant's state
-- (src/read_model/rules.rs, grant_rows). A removed one keeps its row. Read by the lists of every rule, and when coupons are
-- earned.
CREATE TABLE grants_v1 (
  bucket        BIGINT NOT NULL,
  cause         BIGINT NOT NULL,             -- 0 order amount, 1 goods group, 2 level, 3 birthday
  cause_id      BIGINT NOT NULL,             -- the rule, group or level; 0 for a birthday
  grant_id      BIGINT NOT NULL,
  definition_id BIGINT NOT NULL,
  num           BIGINT NOT NULL,
  employee_id   BIGINT NOT NULL,             -- who added it
  added_at_ms   BIGINT NOT NULL,
  removed       BIGINT NOT NULL,
  -- By what earns it, which never changes: what a rule grants is one walk. A single grant is read from its stream.
  PRIMARY KEY (bucket, cause, cause_id, grant_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
