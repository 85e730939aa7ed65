-- Allotments (引流券) as they are now, a pure function of the allotment's state (src/read_model.rs, allotment_rows). How
-- many were taken stands in stock_v1, under the negative of the allotment's id. Read by business/getattract,
-- wechat/getattract and wechat/receive.
CREATE TABLE allotments_v1 (
  bucket         BIGINT NOT NULL,
  allotment_id   BIGINT NOT NULL,            -- the manual's bc_id
  partner_id     BIGINT NOT NULL,
  definition_id  BIGINT NOT NULL,
  num            BIGINT NOT NULL,            -- how many may be taken in all
  end_date       BIGINT NOT NULL,            -- the last local day: 20261231
  employee_id    BIGINT NOT NULL,            -- who allotted it
  allotted_at_ms BIGINT NOT NULL,
  PRIMARY KEY (bucket, allotment_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
-- A partner's allotments, newest first.
CREATE INDEX allotments_v1_by_partner ON allotments_v1 (bucket, partner_id, allotment_id);
