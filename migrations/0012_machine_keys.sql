-- What machines' secrets must hash to. Not in the log: whoever reads it must not be able to try secrets, and a ledger that is
-- made of an export has no keys that hold.
CREATE TABLE machine_keys (
  machine_id      BIGINT NOT NULL PRIMARY KEY,
  secret_hash     TEXT   NOT NULL,           -- SHA-256 of 256 random bits, hexadecimal
  last_used_at_ms BIGINT NOT NULL            -- to the minute; 0 = never
)
-- sqlite: STRICT
;
