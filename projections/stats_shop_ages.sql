-- The same as stats_shop_uses by month, so that years are few rows. Read where stats_shop_uses would be, for whole months.
CREATE TABLE stats_shop_ages_v1 (
  bucket     BIGINT NOT NULL,
  month      BIGINT NOT NULL,           -- 202611, of the use
  shop_id    BIGINT NOT NULL,
  age_days   BIGINT NOT NULL,           -- from the issue to the use
  used       BIGINT NOT NULL DEFAULT 0,
  used_cents BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, month, shop_id, age_days)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day / 100 AS month, shop_id, age_days,
  SUM(used) AS used,
  SUM(used * value_cents) AS used_cents
FROM stats_uses
WHERE used <> 0
GROUP BY 1, shop_id, age_days
