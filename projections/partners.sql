-- Partners (合作商家) as they are now, a pure function of the state of a shop that is one (src/read_model.rs, shop_rows).
-- A table of their own, so that no page of shops can show one. Read by business/list, business/get and wherever a
-- redemption names its shop.
CREATE TABLE partners_v1 (
  bucket      BIGINT NOT NULL,
  shop_id     BIGINT NOT NULL,               -- shops and partners share one sequence of ids
  is_open     BIGINT NOT NULL,
  audit_key   BIGINT NOT NULL,               -- the number of the key in its QR
  name        TEXT   NOT NULL,
  phone       TEXT   NOT NULL,
  address     TEXT   NOT NULL,
  employee_id BIGINT NOT NULL,               -- who added it
  PRIMARY KEY (bucket, shop_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
