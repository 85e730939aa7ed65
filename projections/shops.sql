-- Shops (門店) as they are now, a pure function of the shop's state (src/read_model.rs, shop_rows).
-- Read by shop/list, shop/get and wherever a redemption names its shop.
CREATE TABLE shops_v1 (
  bucket      BIGINT NOT NULL,
  shop_id     BIGINT NOT NULL,
  is_open     BIGINT NOT NULL,
  audit_key   BIGINT NOT NULL,               -- the number of the key in its QR
  name        TEXT   NOT NULL,
  phone       TEXT   NOT NULL,
  address     TEXT   NOT NULL,
  employee_id BIGINT NOT NULL,               -- who opened it
  PRIMARY KEY (bucket, shop_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
