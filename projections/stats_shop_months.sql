-- The same as stats_shops by month, so that years are few rows. Read where stats_shops would be, for whole months.
CREATE TABLE stats_shop_months_v1 (
  bucket         BIGINT NOT NULL,
  month          BIGINT NOT NULL,           -- 202611
  shop_id        BIGINT NOT NULL,           -- 0 = what happens at no shop
  issued         BIGINT NOT NULL DEFAULT 0,
  claimed        BIGINT NOT NULL DEFAULT 0,
  viewed         BIGINT NOT NULL DEFAULT 0,
  given          BIGINT NOT NULL DEFAULT 0,
  withdrawn      BIGINT NOT NULL DEFAULT 0,
  lapsed         BIGINT NOT NULL DEFAULT 0,
  received       BIGINT NOT NULL DEFAULT 0,
  redeemed       BIGINT NOT NULL DEFAULT 0,
  reversed       BIGINT NOT NULL DEFAULT 0,
  reviewed       BIGINT NOT NULL DEFAULT 0,
  score          BIGINT NOT NULL DEFAULT 0,
  voided         BIGINT NOT NULL DEFAULT 0,
  issued_cents   BIGINT NOT NULL DEFAULT 0,
  redeemed_cents BIGINT NOT NULL DEFAULT 0,
  reversed_cents BIGINT NOT NULL DEFAULT 0,
  voided_cents   BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, month, shop_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day / 100 AS month, shop_id,
  SUM(issued) AS issued,
  SUM(claimed) AS claimed,
  SUM(viewed) AS viewed,
  SUM(given) AS given,
  SUM(withdrawn) AS withdrawn,
  SUM(lapsed) AS lapsed,
  SUM(received) AS received,
  SUM(redeemed) AS redeemed,
  SUM(reversed) AS reversed,
  SUM(reviewed) AS reviewed,
  SUM(score) AS score,
  SUM(voided) AS voided,
  SUM(issued_cents) AS issued_cents,
  SUM(redeemed_cents) AS redeemed_cents,
  SUM(reversed_cents) AS reversed_cents,
  SUM(voided_cents) AS voided_cents
FROM stats_days
GROUP BY 1, shop_id
