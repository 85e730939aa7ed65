-- Groups of goods (商品組), a pure function of the group's state (src/read_model/rules.rs, goods_group_rows). A deleted one
-- keeps its row. Read by goodsgroup/getlist and goods/get; what belongs to it is in goods_group_goods_v1.
CREATE TABLE goods_groups_v1 (
  bucket         BIGINT NOT NULL,
  goods_group_id BIGINT NOT NULL,
  title          TEXT   NOT NULL,
  employee_id    BIGINT NOT NULL,            -- who created it
  created_at_ms  BIGINT NOT NULL,
  deleted        BIGINT NOT NULL,
  PRIMARY KEY (bucket, goods_group_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
