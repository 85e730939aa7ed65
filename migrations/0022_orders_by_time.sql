-- /order/list of some days walks theirs alone. New entries go to its right edge.
CREATE INDEX orders_v1_by_time ON orders_v1 (bucket, placed_at_ms, order_id);
