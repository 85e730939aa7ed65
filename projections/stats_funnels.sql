-- How many of the coupons that were issued on a day came how far: the same as in stats_cohorts, whenever it happened to them, so
-- that years are few rows. Read by /v1/statistics/funnel.
CREATE TABLE stats_funnels_v1 (
  bucket        BIGINT NOT NULL,
  issue_day     BIGINT NOT NULL,           -- local
  definition_id BIGINT NOT NULL,
  kind          BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source        BIGINT NOT NULL,           -- the manual's come
  partner_id    BIGINT NOT NULL,           -- from whose allotment; 0 = nobody's
  issued        BIGINT NOT NULL DEFAULT 0,
  seen          BIGINT NOT NULL DEFAULT 0, -- coupons that somebody opened
  used          BIGINT NOT NULL DEFAULT 0, -- uses that stand
  PRIMARY KEY (bucket, issue_day, definition_id, kind, source, partner_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT issue_day, definition_id, kind, source, partner_id,
  SUM(issued) AS issued,
  SUM(seen) AS seen,
  SUM(used) AS used
FROM stats_cohorts
GROUP BY issue_day, definition_id, kind, source, partner_id
