//! Nonces of partners' signed requests: each is accepted once, by whichever server it comes to.

use crate::store::{Statement, Store, StoreError};

/// How many lapsed nonces go in one transaction: the writer is not to be held up.
const CHUNK: i64 = 500;

/// Uses a nonce up; false where it was used before.
pub async fn use_nonce(
    store: &Store,
    partner_id: i64,
    nonce: &str,
    lapses_at_ms: i64,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO partner_nonces (partner_id, nonce, lapses_at_ms) VALUES ($1, $2, $3)
               ON CONFLICT (partner_id, nonce) DO NOTHING RETURNING partner_id";
    let parameters = [partner_id.into(), nonce.into(), lapses_at_ms.into()];
    let answers = store.write(vec![Statement::new(sql, parameters)]).await?;
    Ok(answers.first().is_some_and(|rows| !rows.is_empty()))
}

/// Forgets nonces whose time is over, and tells how many.
pub async fn forget_nonces(store: &Store, now_ms: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM partner_nonces WHERE (partner_id, nonce) IN
                 (SELECT n.partner_id, n.nonce FROM partner_nonces n WHERE n.lapses_at_ms <= $1
                  ORDER BY n.lapses_at_ms LIMIT $2) RETURNING partner_id";
    let mut forgotten = 0;
    loop {
        let answers = store.write(vec![Statement::new(sql, [now_ms.into(), CHUNK.into()])]).await?;
        let some = answers.first().map_or(0, Vec::len);
        forgotten += some;
        if some < CHUNK as usize {
            return Ok(forgotten);
        }
    }
}
