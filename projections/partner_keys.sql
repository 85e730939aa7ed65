-- Partners' public keys, a pure function of the key's state (src/read_model/partner_keys.rs, partner_key_rows). Read with
-- every signed request of a partner.
CREATE TABLE partner_keys_v1 (
  bucket           BIGINT NOT NULL,
  partner_id       BIGINT NOT NULL,
  partner_key_id   BIGINT NOT NULL,
  public_key       TEXT   NOT NULL,          -- Ed25519, 32 bytes in base64
  employee_id      BIGINT NOT NULL,          -- who registered it
  registered_at_ms BIGINT NOT NULL,
  revoked_at_ms    BIGINT NOT NULL,          -- 0 = it was not
  PRIMARY KEY (bucket, partner_id, partner_key_id)
)
-- sqlite: STRICT, WITHOUT ROWID
;
