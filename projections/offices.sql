-- Offices (職務), a pure function of the office's state (src/read_model/offices.rs, office_rows). A deleted one keeps its
-- row. Read with every request of an employee, and by office/list and office/get.
CREATE TABLE offices_v1 (
  bucket      BIGINT NOT NULL,
  office_id   BIGINT NOT NULL,
  title       TEXT   NOT NULL,
  rights      TEXT   NOT NULL,               -- by their numbers, 1,2,3; empty = none
  employee_id BIGINT NOT NULL,               -- who added it
  added_at_ms BIGINT NOT NULL,
  deleted     BIGINT NOT NULL,
  PRIMARY KEY (bucket, office_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
