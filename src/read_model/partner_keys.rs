//! Partners' public keys: which rows their states have, and the SELECTs that read them.

use super::PARTNER_KEYS;
use crate::partner_key::PartnerKey;
use crate::store::{BUCKET, LiveRow, Row, Statement, Store, StoreError};

/// The one live row of a partner's key.
#[must_use]
pub fn partner_key_rows(id: i64, key: &PartnerKey) -> Vec<LiveRow> {
    let Some(public_key) = &key.public_key else {
        return Vec::new();
    };
    let cells = vec![
        key.partner_id.into(),
        id.into(),
        public_key.as_str().into(),
        key.employee_id.into(),
        key.registered_at_ms.into(),
        key.revoked_at_ms.into(),
    ];
    vec![LiveRow { table: &PARTNER_KEYS, cells }]
}

/// A partner's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartnerKeyRow {
    /// Its id.
    pub id: i64,
    /// Whose it is.
    pub partner_id: i64,
    /// The Ed25519 public key, 32 bytes in base64.
    pub public_key: String,
    /// When it was registered, Unix milliseconds.
    pub registered_at_ms: i64,
    /// When it was revoked, Unix milliseconds; 0 = it was not.
    pub revoked_at_ms: i64,
}

fn read(row: &Row) -> PartnerKeyRow {
    PartnerKeyRow {
        partner_id: row.int(0),
        id: row.int(1),
        public_key: row.text(2).to_owned(),
        registered_at_ms: row.int(3),
        revoked_at_ms: row.int(4),
    }
}

/// The keys of a partner or (0) of all, newest first.
pub async fn partner_keys(store: &Store, partner_id: i64) -> Result<Vec<PartnerKeyRow>, StoreError> {
    let sql =
        "SELECT partner_id, partner_key_id, public_key, registered_at_ms, revoked_at_ms FROM partner_keys_v1
               WHERE bucket = $1 AND ($2 = 0 OR partner_id = $2) ORDER BY partner_key_id DESC";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), partner_id.into()])).await?;
    Ok(rows.iter().map(read).collect())
}

/// The public keys that a partner signs with now. They are few.
pub async fn signing_keys(store: &Store, partner_id: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT public_key FROM partner_keys_v1
               WHERE bucket = $1 AND partner_id = $2 AND revoked_at_ms = 0 ORDER BY partner_key_id DESC";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), partner_id.into()])).await?;
    Ok(rows.iter().map(|row| row.text(0).to_owned()).collect())
}
