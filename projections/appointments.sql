-- Who holds which office and who manages his shop, a pure function of what was said of an employee (src/read_model/offices.rs,
-- appointment_rows). Whoever has no row holds none. Read with every request of an employee: where he works and whether he
-- still does is the directory's to say.
CREATE TABLE appointments_v1 (
  bucket         BIGINT NOT NULL,
  appointment_id BIGINT NOT NULL,            -- the employee's id
  office_id      BIGINT NOT NULL,            -- 0 = none
  manager        BIGINT NOT NULL,            -- 1 manages the shop where he works
  PRIMARY KEY (bucket, appointment_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
