-- Coupons that were taken from a partner's allotment, one row each with the use that stands; a pure function of the
-- coupon's state (src/read_model.rs, coupon_rows). What was taken and not voided is the allotment's counter in stock_v1.
-- Read by the settlement lists businesshome/auditcoupon and statistics/getattract.
CREATE TABLE partner_coupons_v1 (
  bucket          BIGINT NOT NULL,
  coupon_id       BIGINT NOT NULL,
  allotment_id    BIGINT NOT NULL,
  definition_id   BIGINT NOT NULL,
  issued_to       BIGINT NOT NULL,           -- the member who took it
  voided          BIGINT NOT NULL,
  redemption_id   BIGINT NOT NULL,           -- of the use that stands, 0 = none; likewise the four below
  used_at_ms      BIGINT NOT NULL,
  shop_id         BIGINT NOT NULL,
  member_id       BIGINT NOT NULL,           -- who held it then
  employee_id     BIGINT NOT NULL,           -- 0 = the member himself
  deduction_cents BIGINT NOT NULL,
  title           TEXT   NOT NULL,
  PRIMARY KEY (bucket, coupon_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- Settlement walks the used ones of an allotment by time; what is unused is not in it.
CREATE INDEX partner_coupons_v1_by_use ON partner_coupons_v1 (bucket, allotment_id, used_at_ms) WHERE used_at_ms > 0;
