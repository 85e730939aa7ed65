-- Whom a provider of OpenID Connect names, by a keyed hash of its name and his.
CREATE TABLE subjects (
  subject_mac TEXT   NOT NULL PRIMARY KEY,
  account_id  BIGINT NOT NULL,
  number      BIGINT NOT NULL                -- the link's, as its event has it
)
-- sqlite: STRICT, WITHOUT ROWID
;
