//! Leases: which process does a piece of work that any of them could do.
//!
//! A lease only saves work. What must not happen twice is kept from it by versions and keys in the log: two processes that
//! both believe to hold one do no harm. It ends by itself, so that the work of a process that was killed goes on elsewhere.

use std::sync::OnceLock;

use crate::ledger::Ledger;
use crate::store::{BUCKET, Statement, StoreError};
use crate::value::random;

/// A lease's value is the Unix second at which it ends, times this, plus the number of who holds it.
pub const HOLDERS: i64 = 1_000_000_000;

/// Takes or renews a lease for so long; false while another process has it.
pub async fn take(ledger: &Ledger, name: &str, for_ms: i64) -> Result<bool, StoreError> {
    let now_ms = ledger.clock().now_ms();
    let value = (now_ms + for_ms) / 1_000 * HOLDERS + holder();
    let not_over = (now_ms / 1_000 + 1) * HOLDERS;
    let sql = "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, $3)
               ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value
               WHERE checkpoints.value < $4 OR checkpoints.value % 1000000000 = $5 RETURNING value";
    let cells = [BUCKET.into(), name.into(), value.into(), not_over.into(), holder().into()];
    let rows = ledger.store().write(vec![Statement::new(sql, cells)]).await?;
    Ok(rows.first().is_some_and(|rows| !rows.is_empty()))
}

/// Lets others have at once what this process holds by a name, in which `%` stands for any text.
pub async fn release(ledger: &Ledger, name: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM checkpoints WHERE bucket = $1 AND name LIKE $2 AND value % 1000000000 = $3";
    let cells = [BUCKET.into(), name.into(), holder().into()];
    ledger.store().write(vec![Statement::new(sql, cells)]).await.map(drop)
}

/// This process's number among those that share a ledger: two have the same once in a thousand million.
#[must_use]
pub fn holder() -> i64 {
    static HOLDER: OnceLock<i64> = OnceLock::new();
    *HOLDER.get_or_init(|| i64::from(u32::from_le_bytes(random())) % HOLDERS)
}
