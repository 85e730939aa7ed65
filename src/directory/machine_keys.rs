//! What machines' secrets must hash to, and when each was last used.

use crate::store::{Statement, Store, StoreError};

/// Keeps what a key's secret hashes to.
pub async fn add_machine_key(store: &Store, id: i64, secret_hash: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO machine_keys (machine_id, secret_hash, last_used_at_ms) VALUES ($1, $2, 0)";
    store.write(vec![Statement::new(sql, [id.into(), secret_hash.into()])]).await.map(drop)
}

/// Notes when a key was used, unless that was noted within so many milliseconds before.
pub async fn note_machine_used(store: &Store, id: i64, now_ms: i64, every_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE machine_keys SET last_used_at_ms = $2 WHERE machine_id = $1 AND last_used_at_ms <= $3";
    let noted_by = now_ms.saturating_sub(every_ms);
    store.write(vec![Statement::new(sql, [id.into(), now_ms.into(), noted_by.into()])]).await.map(drop)
}
