-- The counter's list of redemptions walks them by time, newest first. New entries go to its right edge.
CREATE INDEX redemptions_v1_by_time ON redemptions_v1 (bucket, used_at_ms, redemption_id);
