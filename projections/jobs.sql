-- Jobs (群發, recall, extension) as their events make them, a pure function of the job's state (src/read_model.rs,
-- job_rows). How far a running one is stands in job_progress, outside the log. Read by sendelecoupon/info and getlist and
-- by job/info and getlist.
CREATE TABLE jobs_v1 (
  bucket        BIGINT NOT NULL,
  job_id        BIGINT NOT NULL,
  kind          BIGINT NOT NULL,             -- 0 send, 1 recall, 2 extension
  state         BIGINT NOT NULL,             -- 0 running, 1 done, 2 paused, 3 cancelled, 4 awaits approval
  definition_id BIGINT NOT NULL,             -- what is sent, or whose coupons are meant; 0 = those of send_id
  send_id       BIGINT NOT NULL,             -- the send whose coupons are meant; 0 = those of definition_id
  shop_ids      TEXT   NOT NULL,             -- of a send: 1,2,3; empty = all
  tag_ids       TEXT   NOT NULL,
  level_ids     TEXT   NOT NULL,
  notify        BIGINT NOT NULL,
  end_date      BIGINT NOT NULL,             -- of an extension: 20261231; else 0
  targeted      BIGINT NOT NULL,
  done          BIGINT NOT NULL,             -- once it is done; until then see job_progress
  refused       TEXT   NOT NULL,             -- {"5002":3}, likewise
  reason        TEXT   NOT NULL,
  employee_id   BIGINT NOT NULL,             -- who started it
  started_at_ms BIGINT NOT NULL,
  ended_at_ms   BIGINT NOT NULL,             -- 0 = not yet
  PRIMARY KEY (bucket, job_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
