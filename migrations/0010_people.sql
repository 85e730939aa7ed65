-- Personal texts are sealed under keys that lie outside the database (src/directory/seal.rs): nothing finds them by a range
-- of their bytes any more.
DROP INDEX members_by_phone;
DROP INDEX members_by_card;
DROP INDEX members_by_name;
DROP INDEX members_by_nickname;

-- How members' texts begin, for searches. A token is a keyed hash of the field and the first characters of the text, at a
-- few lengths; the key is not in the database. A search walks one token's members, newest first.
CREATE TABLE member_tokens (
  token     BIGINT NOT NULL,
  member_id BIGINT NOT NULL,
  PRIMARY KEY (token, member_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
