-- Signing in through WeChat (src/directory/wechat.rs).

-- Which member an openid is. Found by a keyed hash of appid and openid; the key is not in the database. The openid itself
-- is sealed under its member's key, like the rest of his personal data, and both go when he is erased.
CREATE TABLE wechat_bindings (
  openid_hash    TEXT   NOT NULL PRIMARY KEY,
  member_id      BIGINT NOT NULL,
  appid          TEXT   NOT NULL,
  openid         TEXT   NOT NULL,
  unbound_before BIGINT NOT NULL              -- how often he had been unbound then: a later unbinding makes it void
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- One openid an app for a member; and what is his is found, to be shown or deleted.
CREATE UNIQUE INDEX wechat_bindings_by_member ON wechat_bindings (member_id, appid);

-- What came back from WeChat's page in a browser, so that it comes once only, whichever server it comes to.
CREATE TABLE wechat_states (
  state         TEXT   NOT NULL PRIMARY KEY,
  expires_at_ms BIGINT NOT NULL               -- after it the state is refused for its age, and the row goes
)
-- sqlite: STRICT, WITHOUT ROWID
;
CREATE INDEX wechat_states_by_end ON wechat_states (expires_at_ms);

-- Erasures, which every server looks for every few seconds: since members sign in, their streams are no longer few.
CREATE INDEX events_of_erasures ON events (bucket, position) WHERE aggregate_type = 'member' AND event_type = 'Erased';
