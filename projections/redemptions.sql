-- Redemptions (核銷): one row per use, kept after a reversal; a pure function of the coupon's state
-- (src/read_model.rs, coupon_rows). Read by auditcouponinfo and by reversals.
CREATE TABLE redemptions_v1 (
  bucket         BIGINT NOT NULL,
  redemption_id  BIGINT NOT NULL,
  coupon_id      BIGINT NOT NULL,
  definition_id  BIGINT NOT NULL,
  member_id      BIGINT NOT NULL,            -- who held the coupon
  shop_id        BIGINT NOT NULL,
  employee_id    BIGINT NOT NULL,            -- 0 = the member himself
  used_at_ms     BIGINT NOT NULL,
  reversed_at_ms BIGINT NOT NULL,            -- 0 = it stands
  title          TEXT   NOT NULL,
  PRIMARY KEY (bucket, redemption_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
