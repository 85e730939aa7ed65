-- The inbox (src/messages.rs): what members are told. Written by followers of the log and of the calendar, and yet no read
-- model: what was read and what was handed to the webhook is in no event, so it is never made anew from nothing.

-- One row for each member and reason. Ids only: the text is made when it is read, in the reader's language.
CREATE TABLE messages (
  bucket         BIGINT NOT NULL,
  member_id      BIGINT NOT NULL,            -- who is told
  kind           BIGINT NOT NULL,            -- 1 sent to him, 2 his gift was received, 3 it came back, 4 ends soon, 5 birthday, 6 level
  subject_id     BIGINT NOT NULL,            -- the reason: of kind 1 the mass send, else the coupon
  part           BIGINT NOT NULL,            -- of kinds 2 and 3 the number of the gift, of kind 4 the end date (20181101), else 0
  message_id     BIGINT NOT NULL,            -- in the order of commits; gaps are normal
  coupon_id      BIGINT NOT NULL,            -- the coupon that it is about
  other_id       BIGINT NOT NULL,            -- of kind 2 the member who received it, else 0
  created_at_ms  BIGINT NOT NULL,
  read_at_ms     BIGINT NOT NULL,            -- 0 = unread
  next_try_at_ms BIGINT NOT NULL,            -- when it is handed to the webhook (again); 0 = not, or not any more
  tries          BIGINT NOT NULL,
  handed_at_ms   BIGINT NOT NULL,            -- when the webhook took it; 0 = it has not, -1 = given up
  -- Once each: whoever writes the same reason again writes nothing.
  PRIMARY KEY (bucket, member_id, kind, subject_id, part)
)
-- sqlite: STRICT, WITHOUT ROWID
-- postgres: WITH (fillfactor = 90)
;
-- A member's page, newest first.
CREATE INDEX messages_by_member ON messages (bucket, member_id, message_id);
-- How many he has not read, and which.
CREATE INDEX messages_unread ON messages (bucket, member_id, message_id) WHERE read_at_ms = 0;
-- What the webhook waits for.
CREATE INDEX messages_to_hand_over ON messages (bucket, next_try_at_ms, message_id) WHERE next_try_at_ms > 0;
-- What goes: of what was read the old, of what was not the very old.
CREATE INDEX messages_read_by_age ON messages (bucket, created_at_ms) WHERE read_at_ms > 0;
CREATE INDEX messages_unread_by_age ON messages (bucket, created_at_ms) WHERE read_at_ms = 0;

-- A ledger that has a history already tells nobody of it, not even when the follower begins anew.
INSERT INTO ledger_facts (name, value)
  SELECT 'messages_after', CAST(position AS TEXT) FROM log_head WHERE bucket = 0 AND position > 0;
INSERT INTO checkpoints (bucket, name, value)
  SELECT bucket, 'messages', position FROM log_head WHERE bucket = 0 AND position > 0;
