-- Which members used a coupon on a day, and which of them had used one on an earlier day: so how many there are in any days
-- together. Read by the statistics pages and by /v1/statistics for members and returning_members. A set is a Roaring bitmap of
-- member_ids, in the portable format for 64 bits and base64; sets are told apart by a dot.
CREATE TABLE stats_visits_v1 (
  bucket     BIGINT NOT NULL,
  what       BIGINT NOT NULL,           -- 0 with any coupon anywhere, 1 with a definition's, 2 in a shop
  grain      BIGINT NOT NULL,           -- 1 a day, 2 a month, from the first use in a later one on, 3 ever (of what = 0)
  day        BIGINT NOT NULL,           -- local, 20261129; of a month 20261100; ever 0
  id         BIGINT NOT NULL,           -- the definition's or the shop's; 0 where what is
  part       BIGINT NOT NULL,           -- member_id / 262144 % 64
  members    BIGINT NOT NULL DEFAULT 0, -- members with a use that stands
  again      BIGINT NOT NULL DEFAULT 0, -- those of them whose first one, of anything anywhere, was on an earlier day
  member_set TEXT   NOT NULL DEFAULT '', -- which; of a day, then the bits of how many more uses than one each has
  again_set  TEXT   NOT NULL DEFAULT '',
  -- The days of a range are one walk, of one definition or of all.
  PRIMARY KEY (bucket, what, grain, day, id, part)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- Hardly anything is gained by compressing them.
-- postgres: ALTER TABLE stats_visits_v1 ALTER member_set SET STORAGE EXTERNAL, ALTER again_set SET STORAGE EXTERNAL;
-- fold:
-- by src/statistics/visits.rs
