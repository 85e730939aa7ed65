-- What no event may hold of accounts: names, which are personal, and hashes. Who may sign in at all, and as what, follows from
-- the events (projections/accounts.sql).

-- With what somebody signs in.
CREATE TABLE credentials (
  name       TEXT   NOT NULL PRIMARY KEY,    -- as it is compared: lower case, ASCII
  account_id BIGINT NOT NULL,
  password   TEXT   NOT NULL                 -- argon2id as a PHC string; empty = none holds
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- A new password, and an account's page.
CREATE INDEX credentials_by_account ON credentials (account_id);

-- Tries to sign in since the last one that was right, by a keyed hash of the name, whether there is such an account or not.
-- A row goes a day after its last try.
CREATE TABLE sign_in_tries (
  name_mac        TEXT   NOT NULL PRIMARY KEY,
  tries           BIGINT NOT NULL,
  locked_until_ms BIGINT NOT NULL,           -- 0 = never locked
  tried_at_ms     BIGINT NOT NULL
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Sessions. A row goes when its session is ended, or after it has ended by itself.
CREATE TABLE sessions (
  session_id    TEXT   NOT NULL PRIMARY KEY,
  account_id    BIGINT NOT NULL,
  secret_hash   TEXT   NOT NULL,             -- SHA-256 of 256 random bits
  seen_at_ms    BIGINT NOT NULL,             -- the last call, to the minute
  ends_at_ms    BIGINT NOT NULL              -- at the latest
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- All of an account are ended at once.
CREATE INDEX sessions_by_account ON sessions (account_id);
