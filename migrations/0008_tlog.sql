-- The transparency log: the RFC 6962 tree over the events' exact bytes, and what was signed of it. Computed from the log, and
-- yet kept: what was signed can be computed again, a signature cannot.

-- Tiles of height 8, as c2sp.org/tlog-tiles has them. Only the right-most of a level is ever written again, wider.
CREATE TABLE tlog_tiles (
  bucket     BIGINT NOT NULL,
  level      BIGINT NOT NULL,                -- 0: hashes of leaves; above: roots of the full tiles below
  tile_index BIGINT NOT NULL,                -- from 0, on its level
  width      BIGINT NOT NULL,                -- hashes in it: 1 to 256
  hashes     TEXT   NOT NULL,                -- base64 of width times 32 bytes
  PRIMARY KEY (bucket, level, tile_index)
)
-- sqlite: STRICT, WITHOUT ROWID
;

-- Signed checkpoints: those of the last minute and the first of each hour.
CREATE TABLE tlog_checkpoints (
  bucket       BIGINT NOT NULL,
  size         BIGINT NOT NULL,              -- leaves of the tree
  root         TEXT   NOT NULL,              -- base64
  note         TEXT   NOT NULL,              -- the whole signed note, with what witnesses added to it
  signed_at_ms BIGINT NOT NULL,
  PRIMARY KEY (bucket, size)
)
-- sqlite: STRICT
;
