-- Accounts as they are now, a pure function of the account's state (src/read_model/accounts.rs, account_rows).
-- Read by every call of a session, when somebody signs in, and by account/list.
CREATE TABLE accounts_v1 (
  bucket      BIGINT NOT NULL,
  account_id  BIGINT NOT NULL,
  role        TEXT   NOT NULL,               -- operator, auditor, employee
  employee_id BIGINT NOT NULL,               -- whose it is, 0 = no employee's
  active      BIGINT NOT NULL,               -- 0 = nobody can sign in with it
  passwords   BIGINT NOT NULL,               -- how many it has had
  totp        BIGINT NOT NULL,               -- the number of its second factor's secret, 0 = none
  PRIMARY KEY (bucket, account_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
