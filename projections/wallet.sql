-- The wallet: one row per coupon and member who has held it, a pure function of the coupon's state
-- (src/read_model.rs, coupon_rows), upserted whole in the append's transaction. Read by couponlist, couponinfo,
-- couponcount, getauditcoupon, auditelecouponlist, the expiry sweep and the guard of "one at a time".
CREATE TABLE wallet_v1 (
  bucket           BIGINT NOT NULL,
  member_id        BIGINT NOT NULL,          -- whose row
  coupon_id        BIGINT NOT NULL,
  definition_id    BIGINT NOT NULL,
  in_hand          BIGINT NOT NULL,          -- 1: this member can still do something with it, dates aside
  starts_at_ms     BIGINT NOT NULL,          -- first instant of start_date
  ends_at_ms       BIGINT NOT NULL,          -- first instant after end_date
  start_date       BIGINT NOT NULL,          -- 20181101
  end_date         BIGINT NOT NULL,
  issued_at_ms     BIGINT NOT NULL,
  used_at_ms       BIGINT NOT NULL,          -- 0 = not used
  given_at_ms      BIGINT NOT NULL,          -- of the pending gift, or of the one that was received; 0 = none
  gift_lapses_at_ms BIGINT NOT NULL,         -- of the pending gift; 0 = none
  kind             BIGINT NOT NULL,          -- 1 cash, 2 exchange
  used_by          BIGINT NOT NULL,          -- who took it out of this row; 0 = in hand
  given_by         BIGINT NOT NULL,          -- who gave it to this member; 0 = nobody
  received_by      BIGINT NOT NULL,          -- who received it from this member; 0 = nobody
  score            BIGINT NOT NULL,          -- of this member's review; 0 = none
  evaluated_at_ms  BIGINT NOT NULL,
  is_read          BIGINT NOT NULL,
  voided           BIGINT NOT NULL,
  expiry_recorded  BIGINT NOT NULL,          -- 1: the Expired event is written
  source           BIGINT NOT NULL,          -- the manual's come
  employee_id      BIGINT NOT NULL,
  order_id         BIGINT NOT NULL,
  goods_id         BIGINT NOT NULL,
  issued_to        BIGINT NOT NULL,          -- the member it was issued to
  deduction_cents  BIGINT NOT NULL,
  self_redeemable  BIGINT NOT NULL,
  title            TEXT   NOT NULL,
  weekdays         TEXT   NOT NULL,          -- 1,2,3; empty = every day
  shop_ids         TEXT   NOT NULL,          -- 1,2,3; empty = every own shop
  -- Clustered by member on SQLite; newest first is a backward walk of it.
  PRIMARY KEY (bucket, member_id, coupon_id)
)
-- sqlite: STRICT, WITHOUT ROWID
-- postgres: WITH (fillfactor = 85)
;
-- The expiry sweep walks coupons by their end. Neither column changes when a coupon is used, so updates stay HOT.
CREATE INDEX wallet_v1_by_end ON wallet_v1 (bucket, ends_at_ms, coupon_id);
-- The sweep of lapsed gifts; rows without a pending gift are not in it.
CREATE INDEX wallet_v1_by_lapse ON wallet_v1 (bucket, gift_lapses_at_ms) WHERE gift_lapses_at_ms > 0;
