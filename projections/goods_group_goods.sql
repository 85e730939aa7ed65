-- Which goods belong to which groups, a pure function of the group's state (src/read_model/rules.rs, goods_group_rows): a row
-- for each that ever did. Read by orders and goods/get.
CREATE TABLE goods_group_goods_v1 (
  bucket         BIGINT NOT NULL,
  goods_id       BIGINT NOT NULL,
  goods_group_id BIGINT NOT NULL,
  belongs        BIGINT NOT NULL,            -- 1: it does now
  -- By the goods: an order asks of each of its goods which groups it is in. A group's goods are read from its stream.
  PRIMARY KEY (bucket, goods_id, goods_group_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
