-- Machines' keys, a pure function of the key's state (src/read_model/machines.rs, machine_rows). Read with every request of
-- a machine; what its secret must hash to, and when it was last used, is in machine_keys.
CREATE TABLE machines_v1 (
  bucket         BIGINT NOT NULL,
  machine_key_id BIGINT NOT NULL,
  name           TEXT   NOT NULL,
  rights         TEXT   NOT NULL,            -- by their numbers, 1,2,3
  expires_at_ms  BIGINT NOT NULL,            -- 0 = it does not end by itself
  employee_id    BIGINT NOT NULL,            -- who issued it
  issued_at_ms   BIGINT NOT NULL,
  revoked_at_ms  BIGINT NOT NULL,            -- 0 = it was not
  PRIMARY KEY (bucket, machine_key_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
