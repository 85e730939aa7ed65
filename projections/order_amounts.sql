-- Rules of an order's amount (訂單滿額), a pure function of the rule's state (src/read_model/rules.rs, order_amount_rows).
-- A deleted one keeps its row. Read by orderamount/info and getlist, and by orders.
CREATE TABLE order_amounts_v1 (
  bucket          BIGINT NOT NULL,
  order_amount_id BIGINT NOT NULL,
  amount_cents    BIGINT NOT NULL,           -- from which amount on it holds
  employee_id     BIGINT NOT NULL,           -- who defined it
  defined_at_ms   BIGINT NOT NULL,
  deleted         BIGINT NOT NULL,
  PRIMARY KEY (bucket, order_amount_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- The highest rule at or below an order's amount is the first row of a backward walk.
CREATE INDEX order_amounts_v1_by_amount ON order_amounts_v1 (bucket, amount_cents, order_amount_id) WHERE deleted = 0;
