-- The stock log of allotments: one row per change of how many may be taken, the first being the allotment itself; a pure
-- function of the allotment's state (src/read_model.rs, allotment_rows). Read by business/invenlist.
CREATE TABLE allotment_changes_v1 (
  bucket        BIGINT NOT NULL,
  allotment_id  BIGINT NOT NULL,
  change_number BIGINT NOT NULL,             -- from 1 in each allotment
  moved_by      BIGINT NOT NULL,             -- how many more or, negative, fewer
  num           BIGINT NOT NULL,             -- how many from then on
  employee_id   BIGINT NOT NULL,
  at_ms         BIGINT NOT NULL,
  -- Newest first is a backward walk of it.
  PRIMARY KEY (bucket, allotment_id, change_number)
)
-- sqlite: STRICT, WITHOUT ROWID
;
