-- Orders as their events make them, a pure function of the order's state (src/read_model/orders.rs, order_rows).
-- Read by order/get, order/list and order/cancelago.
CREATE TABLE orders_v1 (
  bucket          BIGINT NOT NULL,
  order_id        BIGINT NOT NULL,
  member_id       BIGINT NOT NULL,           -- the buyer
  shop_id         BIGINT NOT NULL,           -- 0 = nowhere in particular
  employee_id     BIGINT NOT NULL,           -- who took it
  order_no        TEXT   NOT NULL,           -- the caller's own number of it; empty = none
  amount_cents    BIGINT NOT NULL,           -- sold less returned; below zero where more is returned
  deduction_cents BIGINT NOT NULL,           -- what its coupons took off
  rule_id         BIGINT NOT NULL,           -- the order-amount rule, 0 = none
  score           BIGINT NOT NULL,           -- points used, as told by the till
  balance_cents   BIGINT NOT NULL,           -- account balance used, likewise
  placed_at_ms    BIGINT NOT NULL,
  cancelled_at_ms BIGINT NOT NULL,           -- 0 = it stands
  remark          TEXT   NOT NULL,
  details         TEXT   NOT NULL,           -- its lines as JSON, as pages show them
  used            TEXT   NOT NULL,           -- coupons: 1,2,3
  issued          TEXT   NOT NULL,
  PRIMARY KEY (bucket, order_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- A member's orders, newest id first.
CREATE INDEX orders_v1_by_member ON orders_v1 (bucket, member_id, order_id);
