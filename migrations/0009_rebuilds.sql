-- Rebuilds of live tables: what each is about, how far it is, and what it found. Operational, not the log: what is lost here is
-- a rebuild to begin anew. How far one is moves in the very transaction that writes its rows, so a killed one goes on exactly.
CREATE TABLE rebuilds (
  rebuild_id     BIGINT NOT NULL PRIMARY KEY,
  models         TEXT   NOT NULL,            -- the tables, wallet_v1,redemptions_v1
  made_by        TEXT   NOT NULL,            -- the program that fills them: another one begins anew
  state          BIGINT NOT NULL,            -- 0 filling, 1 comparing, 2 done and the old tables kept, 3 done, 4 given up
  begun_at_ms    BIGINT NOT NULL,
  ended_at_ms    BIGINT NOT NULL,            -- 0 = not yet
  began_at       BIGINT NOT NULL,            -- the position that the tables are filled as of
  position       BIGINT NOT NULL,            -- the position that they have been brought up to
  kind           BIGINT NOT NULL,            -- how many kinds of streams are filled
  after_id       TEXT   NOT NULL,            -- the last stream of the next kind that is filled
  streams        BIGINT NOT NULL,
  events         BIGINT NOT NULL,
  digests        TEXT   NOT NULL,            -- of the new rows, by table, as JSON
  report         TEXT   NOT NULL             -- what it came to, as JSON; empty = not yet
)
-- sqlite: STRICT
;

-- Followers, beside how far they are (checkpoints): whether they rest, and what last went wrong.
CREATE TABLE followers (
  bucket     BIGINT NOT NULL,
  name       TEXT   NOT NULL,
  paused     BIGINT NOT NULL,                -- 1: it rests until it is resumed
  last_error TEXT   NOT NULL,                -- empty = its last run went well
  error_at_ms BIGINT NOT NULL,
  PRIMARY KEY (bucket, name)
)
-- sqlite: STRICT, WITHOUT ROWID
;
