-- The directory: people, tokens, and what must be erasable. One file for both engines: BIGINT stands for SQLite's
-- INTEGER there, and a line behind "-- sqlite:" or "-- postgres:" counts on that engine only.

-- Facts of the installation: secret_id tells which root secret this ledger was started with.
CREATE TABLE ledger_facts (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Where each kind of id goes on. A process reserves a block at a time: gaps are normal, doubles impossible.
CREATE TABLE id_blocks (
  bucket  BIGINT NOT NULL,
  kind    TEXT   NOT NULL,
  next_id BIGINT NOT NULL,
  PRIMARY KEY (bucket, kind)
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Members. Personal data lives here only; events carry the id.
CREATE TABLE members (
  member_id   BIGINT NOT NULL PRIMARY KEY,
  nickname    TEXT   NOT NULL,
  headimgurl  TEXT   NOT NULL,
  member_name TEXT   NOT NULL,
  phone       TEXT   NOT NULL,
  member_card TEXT   NOT NULL,
  level_id    BIGINT NOT NULL,               -- 0 = none
  shop_id     BIGINT NOT NULL,               -- his shop, 0 = none
  tag_ids     TEXT   NOT NULL,               -- 1,2,3
  birthday    BIGINT NOT NULL,               -- 19900229, 0 = unknown
  card_end    BIGINT NOT NULL,               -- the last day of his card, 20261231; 0 = none
  joined_at_ms BIGINT NOT NULL
)
-- sqlite: STRICT
;

-- Employees. A coupon redeemed at the counter is redeemed at the employee's shop.
CREATE TABLE employees (
  employee_id BIGINT NOT NULL PRIMARY KEY,
  name        TEXT   NOT NULL,
  phone       TEXT   NOT NULL,
  shop_id     BIGINT NOT NULL,
  active      BIGINT NOT NULL                -- 1 works here, 0 has left
)
-- sqlite: STRICT
;

-- Tokens cut short before their end. Every process reads the list again within a minute.
CREATE TABLE revoked_tokens (
  token_id     TEXT   NOT NULL PRIMARY KEY,
  expires_at_s BIGINT NOT NULL               -- after it the row says nothing any more
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Texts of reviews with the salt of the hash in their event, kept apart so that they can be erased.
CREATE TABLE reviews (
  coupon_id BIGINT NOT NULL PRIMARY KEY,
  salt      TEXT   NOT NULL,
  text      TEXT   NOT NULL
)
-- sqlite: STRICT
;

-- Failed gift codes of each member, so that ten an hour hold across restarts and processes.
CREATE TABLE gift_attempts (
  bucket    BIGINT NOT NULL,
  member_id BIGINT NOT NULL,
  at_ms     BIGINT NOT NULL
)
-- sqlite: STRICT
;
CREATE INDEX gift_attempts_by_member ON gift_attempts (bucket, member_id, at_ms);

-- Idempotency keys of writes to the directory, which append no events: the answer is rendered from the id they made.
CREATE TABLE directory_receipts (
  caller      TEXT   NOT NULL,
  operation   TEXT   NOT NULL,
  key         TEXT   NOT NULL,
  request_mac TEXT   NOT NULL,
  subject_id  BIGINT NOT NULL,
  PRIMARY KEY (caller, operation, key)
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- How far each follower or sweep has come: a position, or an instant in milliseconds.
CREATE TABLE checkpoints (
  bucket BIGINT NOT NULL,
  name   TEXT   NOT NULL,
  value  BIGINT NOT NULL,
  PRIMARY KEY (bucket, name)
)
-- sqlite: STRICT, WITHOUT ROWID
;
