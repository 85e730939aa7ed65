-- Jobs: whom they are about and how far they are. Operational, not the log: every chunk leaves a receipt there, so what is
-- lost here is found again and nothing is done twice.
CREATE TABLE job_items (
  job_id  BIGINT NOT NULL,
  item_id BIGINT NOT NULL,                   -- the member
  PRIMARY KEY (job_id, item_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;

CREATE TABLE job_progress (
  job_id      BIGINT NOT NULL PRIMARY KEY,
  fingerprint TEXT   NOT NULL,               -- of what is asked: the same again within ten minutes needs confirm
  asked_by    TEXT   NOT NULL,               -- caller and idempotency key: the same request again is no repetition
  begun_at_ms BIGINT NOT NULL,
  chunk       BIGINT NOT NULL,               -- members or positions of one chunk: chunks are the same for ever
  position    BIGINT NOT NULL,               -- the last member or position that is done with
  done        BIGINT NOT NULL,
  refused     TEXT   NOT NULL,               -- {"5002":3}
  ended       BIGINT NOT NULL                -- 1: nothing is left to do
)
-- sqlite: STRICT
;
CREATE INDEX job_progress_open ON job_progress (ended, job_id);

-- Which members have which tag.
CREATE TABLE member_tags (
  member_id BIGINT NOT NULL,
  tag_id    BIGINT NOT NULL,
  PRIMARY KEY (member_id, tag_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- sqlite: INSERT INTO member_tags SELECT DISTINCT m.member_id, t.value FROM members m, json_each('[' || m.tag_ids || ']') t;
-- postgres: INSERT INTO member_tags SELECT DISTINCT m.member_id, t.id::bigint FROM members m, unnest(string_to_array(m.tag_ids, ',')) AS t (id) WHERE t.id <> '';
ALTER TABLE members DROP COLUMN tag_ids;
