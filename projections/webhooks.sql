-- Webhooks, a pure function of the webhook's state (src/read_model/webhooks.rs, webhook_rows). Read by those who send, and by
-- lists; how far each is, is in webhook_lanes.
CREATE TABLE webhooks_v1 (
  bucket            BIGINT NOT NULL,
  webhook_id        BIGINT NOT NULL,
  url               TEXT   NOT NULL,
  types             TEXT   NOT NULL,         -- events' names, Redeemed,Issued; empty = all
  streams           TEXT   NOT NULL,         -- coupon,order/7; empty = all
  generation        BIGINT NOT NULL,         -- of the secret that signs
  previous_until_ms BIGINT NOT NULL,         -- until when the one before signs as well; 0 = there is none
  paused            BIGINT NOT NULL,         -- 0 = it does not rest, 1 = somebody wanted it to, 2 = the receiver answered 410
  employee_id       BIGINT NOT NULL,         -- who added it
  added_at_ms       BIGINT NOT NULL,
  removed_at_ms     BIGINT NOT NULL,         -- 0 = it was not
  PRIMARY KEY (bucket, webhook_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
