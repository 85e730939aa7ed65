-- The same as stats_days by month, so that years are few rows. Read where stats_days would be, for whole months.
CREATE TABLE stats_cube_months_v1 (
  bucket            BIGINT NOT NULL,
  month             BIGINT NOT NULL,           -- 202611: of the days of stats_days, and so are the sums
  definition_id     BIGINT NOT NULL,
  kind              BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source            BIGINT NOT NULL,           -- the manual's come
  partner_id        BIGINT NOT NULL,           -- from whose allotment; 0 = nobody's
  shop_id           BIGINT NOT NULL,
  employee_id       BIGINT NOT NULL,
  issued            BIGINT NOT NULL DEFAULT 0,
  claimed           BIGINT NOT NULL DEFAULT 0,
  viewed            BIGINT NOT NULL DEFAULT 0,
  given             BIGINT NOT NULL DEFAULT 0,
  withdrawn         BIGINT NOT NULL DEFAULT 0,
  lapsed            BIGINT NOT NULL DEFAULT 0,
  received          BIGINT NOT NULL DEFAULT 0,
  redeemed          BIGINT NOT NULL DEFAULT 0,
  reversed          BIGINT NOT NULL DEFAULT 0,
  reviewed          BIGINT NOT NULL DEFAULT 0,
  score             BIGINT NOT NULL DEFAULT 0,
  expired           BIGINT NOT NULL DEFAULT 0,
  voided            BIGINT NOT NULL DEFAULT 0,
  outstanding       BIGINT NOT NULL DEFAULT 0,
  issued_cents      BIGINT NOT NULL DEFAULT 0,
  redeemed_cents    BIGINT NOT NULL DEFAULT 0,
  reversed_cents    BIGINT NOT NULL DEFAULT 0,
  expired_cents     BIGINT NOT NULL DEFAULT 0,
  voided_cents      BIGINT NOT NULL DEFAULT 0,
  outstanding_cents BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, month, definition_id, kind, source, partner_id, shop_id, employee_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day / 100 AS month, definition_id, kind, source, partner_id, shop_id, employee_id,
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
  SUM(expired) AS expired,
  SUM(voided) AS voided,
  SUM(outstanding) AS outstanding,
  SUM(issued_cents) AS issued_cents,
  SUM(redeemed_cents) AS redeemed_cents,
  SUM(reversed_cents) AS reversed_cents,
  SUM(expired_cents) AS expired_cents,
  SUM(voided_cents) AS voided_cents,
  SUM(outstanding_cents) AS outstanding_cents
FROM stats_days
GROUP BY 1, definition_id, kind, source, partner_id, shop_id, employee_id
