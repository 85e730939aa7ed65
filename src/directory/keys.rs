//! A write to the directory happens once under its idempotency key.

use crate::store::{Cell, Row, Statement, Store, StoreError};

/// A write to the directory that bears an idempotency key.
#[derive(Clone, Debug)]
pub struct DirectoryKey {
    /// Who called.
    pub caller: String,
    /// Which operation.
    pub operation: &'static str,
    /// The key he chose.
    pub key: String,
    /// The fingerprint of the request.
    pub request_mac: String,
}

/// What became of a write to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is there.
    Done,
    /// What it was about is not as it had to be: the id to add is taken, the one to change is not there. Nothing is written.
    Unmet,
    /// The idempotency key was used meanwhile. Nothing is written.
    KeyUsed,
}

/// Runs statements and leaves the key's receipt, all in one transaction or nothing. The receipt comes first: who used the
/// key a moment ago may have made unmet what these statements ask for.
pub async fn write(
    store: &Store,
    subject_id: i64,
    key: Option<&DirectoryKey>,
    statements: Vec<Statement>,
) -> Result<Written, StoreError> {
    let mut all: Vec<Statement> = key.map(|key| leave_receipt(key, subject_id)).into_iter().collect();
    all.extend(statements);
    let demands: Vec<bool> = all.iter().map(|statement| statement.must_return).collect();
    let answers = store.write(all).await?;
    let unmet = demands.iter().zip(&answers).position(|(demands, rows)| *demands && rows.is_empty());
    Ok(match unmet {
        None => Written::Done,
        Some(0) if key.is_some() => Written::KeyUsed,
        Some(_) => Written::Unmet,
    })
}

/// Uses a key up, or rolls back what comes with it.
fn leave_receipt(key: &DirectoryKey, subject_id: i64) -> Statement {
    Statement::new(
        "INSERT INTO directory_receipts (caller, operation, key, request_mac, subject_id)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (caller, operation, key) DO NOTHING RETURNING subject_id",
        [
            key.caller.as_str().into(),
            key.operation.into(),
            key.key.as_str().into(),
            key.request_mac.as_str().into(),
            subject_id.into(),
        ],
    )
    .must_return()
}

/// What a key did to the directory: the request's fingerprint and the id it was about.
pub async fn receipt(store: &Store, key: &DirectoryKey) -> Result<Option<(String, i64)>, StoreError> {
    let sql = "SELECT request_mac, subject_id FROM directory_receipts
               WHERE caller = $1 AND operation = $2 AND key = $3";
    let parameters: [Cell; 3] = [key.caller.as_str().into(), key.operation.into(), key.key.as_str().into()];
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.first().map(|row: &Row| (row.text(0).to_owned(), row.int(1))))
}

/// Whether a key that stands for several, each with `/` and a number behind it, was used for another request.
pub async fn is_used_for_another(store: &Store, key: &DirectoryKey) -> Result<bool, StoreError> {
    let sql = "SELECT subject_id FROM directory_receipts
               WHERE caller = $1 AND operation = $2 AND substr(key, 1, length($3)) = $3 AND request_mac <> $4 LIMIT 1";
    let each = format!("{}/", key.key);
    let parameters = [key.caller.as_str(), key.operation, each.as_str(), key.request_mac.as_str()];
    Ok(!store.query(Statement::new(sql, parameters.map(Cell::from))).await?.is_empty())
}
