-- Definitions (電子券) as they are now, a pure function of the definition's state (src/read_model.rs, definition_rows).
-- Read by elecoupons/info and getlist and by cangetcoupon.
CREATE TABLE definitions_v1 (
  bucket              BIGINT NOT NULL,
  definition_id       BIGINT NOT NULL,
  is_on               BIGINT NOT NULL,
  kind                BIGINT NOT NULL,       -- 1 cash, 2 exchange
  title               TEXT   NOT NULL,
  deduction_cents     BIGINT NOT NULL,
  minimum_order_cents BIGINT NOT NULL,
  validity_type       BIGINT NOT NULL,       -- 1 fixed days, 2 counted from receipt, 3 until the member's card ends
  start_date          BIGINT NOT NULL,       -- 20181101 where validity_type = 1, else 0
  end_date            BIGINT NOT NULL,
  starts_after_days   BIGINT NOT NULL,       -- where validity_type = 2, else 0
  valid_days          BIGINT NOT NULL,
  weekdays            TEXT   NOT NULL,
  givable             BIGINT NOT NULL,
  stackable           BIGINT NOT NULL,
  rules               TEXT   NOT NULL,
  shop_ids            TEXT   NOT NULL,
  self_redeemable     BIGINT NOT NULL,
  scan_required       BIGINT NOT NULL,
  issue_limit         BIGINT NOT NULL,       -- the manual's get_limit_type, 1 to 4
  get_limit           BIGINT NOT NULL,
  level_ids           TEXT   NOT NULL,
  claimable           BIGINT NOT NULL,
  employee_id         BIGINT NOT NULL,       -- who defined it
  PRIMARY KEY (bucket, definition_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
