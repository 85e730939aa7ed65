-- The directory in full: levels and tags by name, what else is known of people, whose data is erased, and what lists search by.

ALTER TABLE members ADD COLUMN sex BIGINT NOT NULL DEFAULT 0;              -- 0 unknown, 1 male, 2 female
ALTER TABLE members ADD COLUMN adviser_id BIGINT NOT NULL DEFAULT 0;       -- the employee who looks after him, 0 = none
ALTER TABLE members ADD COLUMN erased_at_ms BIGINT NOT NULL DEFAULT 0;     -- 0 = his data is here
ALTER TABLE employees ADD COLUMN identity TEXT NOT NULL DEFAULT '';        -- the number of his identity card
ALTER TABLE employees ADD COLUMN entry_date BIGINT NOT NULL DEFAULT 0;     -- 20181101, 0 = unknown
ALTER TABLE employees ADD COLUMN leave_date BIGINT NOT NULL DEFAULT 20990101;

-- Searches are for how a text begins: ranges of its bytes, which only this collation orders. SQLite knows no other.
-- postgres: ALTER TABLE members ALTER COLUMN phone TYPE TEXT COLLATE "C", ALTER COLUMN member_card TYPE TEXT COLLATE "C", ALTER COLUMN member_name TYPE TEXT COLLATE "C", ALTER COLUMN nickname TYPE TEXT COLLATE "C";

-- /member/list walks the one that fits what it is asked; the id behind lets a level's and a shop's members come newest first.
CREATE INDEX members_by_phone ON members (phone);
CREATE INDEX members_by_card ON members (member_card);
CREATE INDEX members_by_name ON members (member_name);
CREATE INDEX members_by_nickname ON members (nickname);
CREATE INDEX members_by_level ON members (level_id, member_id);
CREATE INDEX members_by_shop ON members (shop_id, member_id);
-- And a tag is taken from its members when it is deleted.
CREATE INDEX member_tags_by_tag ON member_tags (tag_id, member_id);
CREATE INDEX employees_by_shop ON employees (shop_id, employee_id);

-- Member levels. A member may have a level that has no row here: it is shown by its id.
CREATE TABLE member_levels (
  level_id BIGINT NOT NULL PRIMARY KEY,
  name     TEXT   NOT NULL,
  url      TEXT   NOT NULL,                  -- its picture
  remark   TEXT   NOT NULL
)
-- sqlite: STRICT
;

-- Tags (標簽), likewise.
CREATE TABLE tags (
  tag_id   BIGINT NOT NULL PRIMARY KEY,
  tag_name TEXT   NOT NULL,
  color    TEXT   NOT NULL
)
-- sqlite: STRICT
;

-- Whose personal data was erased: by whom, when and why. The first time stands; the member's row stays.
CREATE TABLE erasures (
  member_id BIGINT NOT NULL PRIMARY KEY,
  erased_by TEXT   NOT NULL,                 -- the caller
  at_ms     BIGINT NOT NULL,
  reason    TEXT   NOT NULL
)
-- sqlite: STRICT
;
