-- What became of the coupons that were issued on a day, by the day on which it happened to them: cohorts, funnels, and how
-- long it took. A use that was taken back is no use: it is subtracted on the day of the use. Read by /v1/statistics/cohorts and
-- for the median of days to redemption.
CREATE TABLE stats_cohorts_v1 (
  bucket        BIGINT NOT NULL,
  day           BIGINT NOT NULL,           -- local, 20261129: of the issue, the first view, the use
  definition_id BIGINT NOT NULL,
  kind          BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source        BIGINT NOT NULL,           -- the manual's come
  partner_id    BIGINT NOT NULL,           -- from whose allotment; 0 = nobody's
  issue_day     BIGINT NOT NULL,           -- local
  age_days      BIGINT NOT NULL,           -- from then to the day
  issued        BIGINT NOT NULL DEFAULT 0,
  seen          BIGINT NOT NULL DEFAULT 0, -- coupons that somebody opened, on the first such day
  used          BIGINT NOT NULL DEFAULT 0, -- uses that stand
  used_cents    BIGINT NOT NULL DEFAULT 0, -- their deductions
  PRIMARY KEY (bucket, day, definition_id, kind, source, partner_id, issue_day)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- What became of the coupons of some days is asked by those days.
CREATE INDEX stats_cohorts_v1_by_issue ON stats_cohorts_v1 (bucket, issue_day, day);
-- fold:
SELECT CASE WHEN used <> 0 THEN use_day ELSE day END AS day, definition_id, kind, source, partner_id, issue_day, age_days,
  SUM(event = 'issued') AS issued,
  SUM(first_view) AS seen,
  SUM(used) AS used,
  SUM(used * value_cents) AS used_cents
FROM facts
WHERE event = 'issued' OR first_view = 1 OR used <> 0
GROUP BY 1, definition_id, kind, source, partner_id, issue_day
