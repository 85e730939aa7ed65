-- Levels that members have reached, so that what reaching one grants is given once per member and level, for ever. A row is
-- written with the level, and marked once it is given; what keeps it from being given twice is its receipt in the log.
CREATE TABLE level_reached (
  member_id     BIGINT NOT NULL,
  level_id      BIGINT NOT NULL,
  reached_at_ms BIGINT NOT NULL,
  state         BIGINT NOT NULL,             -- 0 to be given, 1 done
  PRIMARY KEY (member_id, level_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- What is to be given is walked again and again, and is few.
CREATE INDEX level_reached_open ON level_reached (state, member_id, level_id) WHERE state = 0;
-- Whoever had a level before there were grants has reached it, and gets nothing for it now.
INSERT INTO level_reached (member_id, level_id, reached_at_ms, state)
SELECT member_id, level_id, joined_at_ms, 1 FROM members WHERE level_id <> 0;

-- Members by month and day: 229 for 29 February.
CREATE INDEX members_by_birthday ON members ((birthday % 10000), member_id) WHERE birthday > 0;
