-- Proposals that wait for somebody else's word (four eyes), and what became of them: a pure function of the proposal's state
-- (src/read_model/approvals.rs, approval_rows). Read by approval/list and approval/info, by imports of coupons, and by the
-- sweep, which writes down which have lapsed.
CREATE TABLE approvals_v1 (
  bucket         BIGINT NOT NULL,
  approval_id    BIGINT NOT NULL,
  kind           TEXT   NOT NULL,            -- send, recall, extension, stock, allotment, import
  action         TEXT   NOT NULL,            -- the route that asks for it
  state          BIGINT NOT NULL,            -- 0 open, 1 approved, 2 refused, 3 withdrawn, 4 expired; open ones lapse by date
  num            BIGINT NOT NULL,            -- members, coupons or rows; -1 = without a limit
  above          BIGINT NOT NULL,            -- above which number it needs approval
  subject_id     BIGINT NOT NULL,            -- the job, definition or allotment; 0 of a file
  sha256         TEXT   NOT NULL,            -- of a file, else empty
  proposed_by    TEXT   NOT NULL,            -- employee:1000
  employee_id    BIGINT NOT NULL,
  proposed_at_ms BIGINT NOT NULL,
  lapses_at_ms   BIGINT NOT NULL,
  closed_by      TEXT   NOT NULL,            -- who approved, refused or withdrew it
  closed_at_ms   BIGINT NOT NULL,            -- 0 = not yet
  reason         TEXT   NOT NULL,            -- why it was refused
  PRIMARY KEY (bucket, approval_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- Which are open and have lapsed, the oldest first: they are few among all that there were.
CREATE INDEX approvals_v1_open ON approvals_v1 (bucket, state, lapses_at_ms);
