-- How long it took from the issue to the use, by the day of the use and the shop. A use that was taken back is no use: it is
-- subtracted on the day of the use. Read for the median of days to redemption.
CREATE TABLE stats_shop_uses_v1 (
  bucket     BIGINT NOT NULL,
  day        BIGINT NOT NULL,           -- local, of the use
  shop_id    BIGINT NOT NULL,
  age_days   BIGINT NOT NULL,           -- from the issue to the use
  used       BIGINT NOT NULL DEFAULT 0, -- uses that stand
  used_cents BIGINT NOT NULL DEFAULT 0, -- their deductions
  PRIMARY KEY (bucket, day, shop_id, age_days)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day, shop_id, age_days,
  SUM(used) AS used,
  SUM(used * value_cents) AS used_cents
FROM stats_uses
WHERE used <> 0
GROUP BY day, shop_id, age_days
