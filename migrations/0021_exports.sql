-- Files of lists and statistics that somebody asked for: what was asked by whom, how far it is, and where the file lies. Not
-- the log: what is lost here is a file to be asked for again. Rows stay when their files go: they tell who took what away.
CREATE TABLE exports (
  export_id       BIGINT NOT NULL PRIMARY KEY,
  sheet           TEXT   NOT NULL,
  format          TEXT   NOT NULL,           -- csv, xlsx, parquet
  language        BIGINT NOT NULL,           -- of the columns: 0 traditional, 1 simplified, 2 English
  bom             BIGINT NOT NULL,           -- 1: a CSV begins with a byte order mark
  filter          TEXT   NOT NULL,           -- begin=2026-11-01&member_id=439; empty = all rows
  position        BIGINT NOT NULL,           -- the rows are as of it
  at_ms           BIGINT NOT NULL,           -- and as of this instant
  state           BIGINT NOT NULL,           -- 0 waiting, 1 running, 2 done, 3 failed, 4 cancelled, 5 removed, 6 answered at once
  home            TEXT   NOT NULL,           -- the folder it is made in, by the id that lies there; empty = any
  server          TEXT   NOT NULL,           -- the address of the server that made it
  total           BIGINT NOT NULL,           -- streams there are to look at
  seen            BIGINT NOT NULL,           -- streams looked at
  after_id        TEXT   NOT NULL,           -- where the source goes on behind the finished parts
  parts           BIGINT NOT NULL,           -- finished parts
  line_count      BIGINT NOT NULL,           -- rows in them
  written         BIGINT NOT NULL,           -- rows written into the file
  bytes           BIGINT NOT NULL,           -- the file's size
  sha256          TEXT   NOT NULL,
  reason          TEXT   NOT NULL,           -- why it failed or was removed
  asked_by        TEXT   NOT NULL,
  idempotency_key TEXT   NOT NULL,           -- empty = none
  request_mac     TEXT   NOT NULL,
  asked_at_ms     BIGINT NOT NULL,
  ended_at_ms     BIGINT NOT NULL,           -- 0 = not yet
  lapses_at_ms    BIGINT NOT NULL            -- when the file is removed; 0 = there is none
)
-- sqlite: STRICT
;
-- A key is used once.
CREATE UNIQUE INDEX exports_by_key ON exports (asked_by, idempotency_key) WHERE idempotency_key <> '';
-- What is to be done, and the files that are there.
CREATE INDEX exports_open ON exports (state, export_id) WHERE state IN (0, 1, 2);
