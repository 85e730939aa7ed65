-- What happened to coupons, by local day and by everything that it can be told apart by. Read by the statistics pages and
-- by /v1/statistics where no coarser table has what is asked for; the view stats_days is for everybody's own SQL.
CREATE TABLE stats_days_v1 (
  bucket            BIGINT NOT NULL,
  day               BIGINT NOT NULL,           -- local, 20261129; of an end that passed, the coupon's last day
  definition_id     BIGINT NOT NULL,
  kind              BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source            BIGINT NOT NULL,           -- the manual's come: how the coupon was born
  partner_id        BIGINT NOT NULL,           -- from whose allotment the coupon is; 0 = nobody's
  shop_id           BIGINT NOT NULL,           -- where it was used, of uses and reviews; else 0
  employee_id       BIGINT NOT NULL,           -- who issued, redeemed, voided it or moved its end; 0 = no employee
  issued            BIGINT NOT NULL DEFAULT 0,
  claimed           BIGINT NOT NULL DEFAULT 0, -- of those issued: by the member himself
  viewed            BIGINT NOT NULL DEFAULT 0, -- opened by a holder for his first time
  given             BIGINT NOT NULL DEFAULT 0, -- put out as a gift
  withdrawn         BIGINT NOT NULL DEFAULT 0, -- gifts taken back
  lapsed            BIGINT NOT NULL DEFAULT 0, -- gifts that nobody received
  received          BIGINT NOT NULL DEFAULT 0, -- gifts that changed hands
  redeemed          BIGINT NOT NULL DEFAULT 0, -- uses, those that were taken back among them
  reversed          BIGINT NOT NULL DEFAULT 0, -- uses taken back, on the day of that; shop and employee are the use's
  reviewed          BIGINT NOT NULL DEFAULT 0,
  score             BIGINT NOT NULL DEFAULT 0, -- the sum of the reviews' scores
  expired           BIGINT NOT NULL DEFAULT 0, -- ends that passed in hand, less those that were moved afterwards
  voided            BIGINT NOT NULL DEFAULT 0,
  outstanding       BIGINT NOT NULL DEFAULT 0, -- issued and neither used, expired nor voided: what the day changed
  issued_cents      BIGINT NOT NULL DEFAULT 0, -- the same in deductions
  redeemed_cents    BIGINT NOT NULL DEFAULT 0,
  reversed_cents    BIGINT NOT NULL DEFAULT 0,
  expired_cents     BIGINT NOT NULL DEFAULT 0,
  voided_cents      BIGINT NOT NULL DEFAULT 0,
  outstanding_cents BIGINT NOT NULL DEFAULT 0,
  -- A range of days is one walk.
  PRIMARY KEY (bucket, day, definition_id, kind, source, partner_id, shop_id, employee_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT day, definition_id, kind, source, partner_id, shop_id, employee_id,
  SUM(event = 'issued') AS issued,
  SUM(event = 'issued' AND source = 8) AS claimed,
  SUM(event = 'viewed') AS viewed,
  SUM(event = 'given') AS given,
  SUM(event = 'withdrawn') AS withdrawn,
  SUM(event = 'lapsed') AS lapsed,
  SUM(event = 'received') AS received,
  SUM(event = 'redeemed') AS redeemed,
  SUM(event = 'reversed') AS reversed,
  SUM(event = 'reviewed') AS reviewed,
  SUM(score) AS score,
  SUM(expired) AS expired,
  SUM(event = 'voided') AS voided,
  SUM(outstanding) AS outstanding,
  SUM((event = 'issued') * value_cents) AS issued_cents,
  SUM((event = 'redeemed') * value_cents) AS redeemed_cents,
  SUM((event = 'reversed') * value_cents) AS reversed_cents,
  SUM(expired * value_cents) AS expired_cents,
  SUM((event = 'voided') * value_cents) AS voided_cents,
  SUM(outstanding * value_cents) AS outstanding_cents
FROM facts
GROUP BY day, definition_id, kind, source, partner_id, shop_id, employee_id
