//! Leases: which process does a piece of work that any of them could do.
//!
//! A lease only saves work. What must not happen twice is kept from it by versions and keys in the log: two processes that
//! both believe to hold one do no harm. It ends by itself, so that the work of a process that was killed goes on elsewhere.

use std::sync::OnceLock;

use crate::ledger::Ledger;
use crate::store::{BUCKET, Statement, StoreError};
use crate::value::random;

/// Takes or renews a lease for so long; false while another process has it.
pub async fn take(ledger: &Ledger, name: &str, for_ms: i64) -> Result<bool, StoreError> {
    let now_ms = ledger.clock().now_ms();
    // The low digits name the holder, so that one process can renew what is its own.
    let value = (now_ms + for_ms) / 1_000 * 1_000 + holder();
    let rows = ledger
        .store()
        .write(vec![Statement::new(
            "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, $3)
             ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value
             WHERE checkpoints.value < $4 OR checkpoints.value % 1000 = $5 RETURNING value",
            [BUCKET.into(), name.into(), value.into(), now_ms.into(), holder().into()],
        )])
        .await?;
    Ok(rows.first().is_some_and(|rows| !rows.is_empty()))
}

/// Lets others have a lease at once, where this process holds it.
pub async fn release(ledger: &Ledger, name: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM checkpoints WHERE bucket = $1 AND name = $2 AND value % 1000 = $3";
    ledger.store().write(vec![Statement::new(sql, [BUCKET.into(), name.into(), holder().into()])]).await?;
    Ok(())
}

/// This process's number among the few that share a ledger.
#[must_use]
pub fn holder() -> i64 {
    static HOLDER: OnceLock<i64> = OnceLock::new();
    *HOLDER.get_or_init(|| i64::from(u16::from_le_bytes(random())) % 1_000)
}
