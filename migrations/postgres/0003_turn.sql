-- How often the head was written. An append that expects a turn which has passed writes nothing, however late it arrives.
ALTER TABLE log_head ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
