//! Which member has ever reached which level: what reaching it grants is given once, for ever.

use crate::store::{Cell, Statement, Store, StoreError};

/// The mark that a member has reached a level, for the transaction that gives it to him. The first time is what counts.
#[must_use]
pub fn level_reached_statement(member_id: i64, level_id: i64, now_ms: i64) -> Statement {
    Statement::new(
        "INSERT INTO level_reached (member_id, level_id, reached_at_ms, state) VALUES ($1, $2, $3, 0)
         ON CONFLICT (member_id, level_id) DO NOTHING",
        [member_id, level_id, now_ms].map(Cell::from),
    )
}

/// Whether a member has ever reached a level.
pub async fn has_reached(store: &Store, member_id: i64, level_id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT state FROM level_reached WHERE member_id = $1 AND level_id = $2";
    let rows = store.query(Statement::new(sql, [member_id.into(), level_id.into()])).await?;
    Ok(!rows.is_empty())
}
