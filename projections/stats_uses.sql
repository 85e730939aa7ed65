-- Every use as of the statistics' position, one row each, kept after it was taken back. Read by /statistics/auditcoupon, and
-- for the members of what stats_visits does not tell apart.
CREATE TABLE stats_uses_v2 (
  bucket         BIGINT NOT NULL,
  redemption_id  BIGINT NOT NULL,
  day            BIGINT NOT NULL,           -- local, of the use
  used_at_ms     BIGINT NOT NULL,
  coupon_id      BIGINT NOT NULL,
  definition_id  BIGINT NOT NULL,
  kind           BIGINT NOT NULL,           -- 1 cash, 2 exchange
  source         BIGINT NOT NULL,           -- the manual's come
  partner_id     BIGINT NOT NULL,           -- from whose allotment; 0 = nobody's
  shop_id        BIGINT NOT NULL,
  employee_id    BIGINT NOT NULL,           -- 0 = the member himself
  member_id      BIGINT NOT NULL,
  issue_day      BIGINT NOT NULL,           -- local
  age_days       BIGINT NOT NULL,           -- from the issue to the use
  value_cents    BIGINT NOT NULL,
  used           BIGINT NOT NULL DEFAULT 0, -- 1: it stands, 0: it was taken back
  reversed_at_ms BIGINT NOT NULL DEFAULT 0, -- when; 0 = it stands
  -- The uses of a definition in a range of days are one walk; of all, one for each definition.
  PRIMARY KEY (bucket, definition_id, day, redemption_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- fold:
SELECT redemption_id, use_day AS day, used_at_ms, coupon_id, definition_id, kind, source, partner_id, shop_id,
  employee_id, member_id, issue_day, age_days, value_cents,
  SUM(used) AS used,
  SUM((event = 'reversed') * at_ms) AS reversed_at_ms
FROM facts
WHERE event IN ('redeemed', 'reversed')
GROUP BY redemption_id
