-- How long it took from the issue to the use, by the month of the use: the same as in stats_cohorts, so that years are few
-- rows. Read for the median of days to redemption, for whole months.
CREATE TABLE stats_ages_v1 (
  bucket        BIGINT NOT NULL,
  month         BIGINT NOT NULL,           -- 202611, of the use
  definition_id BIGINT NOT NULL,
  kind          BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source        BIGINT NOT NULL,           -- the manual's come
  partner_id    BIGINT NOT NULL,           -- from whose allotment; 0 = nobody's
  age_days      BIGINT NOT NULL,           -- from the issue to the use
  used          BIGINT NOT NULL DEFAULT 0, -- uses that stand
  used_cents    BIGINT NOT NULL DEFAULT 0, -- their deductions
  PRIMARY KEY (bucket, month, definition_id, kind, source, partner_id, age_days)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day / 100 AS month, definition_id, kind, source, partner_id, age_days,
  SUM(used) AS used,
  SUM(used_cents) AS used_cents
FROM stats_cohorts
WHERE used <> 0 OR used_cents <> 0
GROUP BY 1, definition_id, kind, source, partner_id, age_days
