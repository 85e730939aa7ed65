//! Writing a log that another ledger has written: an export, taken over into an empty ledger.
//!
//! From the first row to the last the ledger is nobody's: its epoch is one that no program writes, so a server that is
//! running on it is refused and ends, and a mark keeps every other program from opening it. Half an import can therefore
//! never be taken for a ledger. Events keep their bytes, times and sequences; nothing is decided here.

use serde::{Deserialize, Serialize};

use super::{BUCKET, EPOCH, Statement, Store, StoreError, StoredEvent};

/// The epoch of a ledger that is being taken over.
pub(super) const NOBODYS_EPOCH: i64 = 0;

/// The fact that marks it: which export, and how many of its receipts are there.
const MARK: &str = "import";

/// A receipt with its key, as an export has it: the order of its fields is the export's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredReceipt {
    /// Who called.
    pub caller: String,
    /// Which operation.
    pub operation: String,
    /// The key he chose.
    pub key: String,
    /// The fingerprint of the request.
    pub request_mac: String,
    /// The first event's position.
    pub position: i64,
    /// How many events.
    pub event_count: i64,
}

/// How far an import has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takeover {
    /// Which export.
    pub export: String,
    /// The last position that is written.
    pub head: i64,
    /// How many receipts are written.
    pub receipts: i64,
}

impl Store {
    /// The import that was begun and not finished.
    pub async fn takeover(&self) -> Result<Option<Takeover>, StoreError> {
        let sql =
            "SELECT f.value, h.position FROM ledger_facts f, log_head h WHERE f.name = $1 AND h.bucket = $2";
        let rows = self.query(Statement::new(sql, [MARK.into(), BUCKET.into()])).await?;
        Ok(rows.first().map(|row| {
            let (export, receipts) = row.text(0).split_once(' ').unwrap_or((row.text(0), "0"));
            Takeover {
                export: export.to_owned(),
                head: row.int(1),
                receipts: receipts.parse().unwrap_or_default(),
            }
        }))
    }

    /// Takes an empty ledger away from everyone, for this export; whether it was empty.
    pub async fn begin_takeover(&self, export: &str) -> Result<bool, StoreError> {
        let fence = "UPDATE log_head SET epoch = $1 WHERE bucket = $2 AND position = 0 AND epoch = $3
                     RETURNING position";
        let fence = Statement::new(fence, [NOBODYS_EPOCH.into(), BUCKET.into(), EPOCH.into()]).must_return();
        let mark = "INSERT INTO ledger_facts (name, value) VALUES ($1, $2)";
        let mark = Statement::new(mark, [MARK.into(), export.into()]);
        let done = self.write(vec![fence, mark]).await?;
        Ok(done.first().is_some_and(|rows| !rows.is_empty()))
    }

    /// Writes events at the positions that they name, behind the head.
    pub async fn take_events(&self, events: Vec<StoredEvent>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        match self {
            Self::Sqlite(store) => store.take_events(events).await,
            Self::Postgres(store) => store.take_events(&events).await,
        }
    }

    /// Writes receipts, and in the same transaction how many there are now.
    pub async fn take_receipts(
        &self,
        so_far: &Takeover,
        receipts: Vec<StoredReceipt>,
    ) -> Result<(), StoreError> {
        let insert =
            "INSERT INTO receipts (bucket, caller, operation, key, request_mac, position, event_count)
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let mark = "UPDATE ledger_facts SET value = $1 WHERE name = $2 AND value = $3 RETURNING name";
        let text = |receipts: i64| match receipts {
            0 => so_far.export.clone(),
            receipts => format!("{} {receipts}", so_far.export),
        };
        let now = so_far.receipts + receipts.len() as i64;
        let mark = Statement::new(mark, [text(now).into(), MARK.into(), text(so_far.receipts).into()]);
        let mut statements = vec![mark.must_return()];
        statements.extend(receipts.into_iter().map(|receipt| {
            let StoredReceipt { caller, operation, key, request_mac, position, event_count } = receipt;
            let cells = [
                caller.into(),
                operation.into(),
                key.into(),
                request_mac.into(),
                position.into(),
                event_count.into(),
            ];
            Statement::new(insert, std::iter::once(BUCKET.into()).chain(cells))
        }));
        let done = self.write(statements).await?;
        if done.first().is_some_and(Vec::is_empty) { Err(somebody_else()) } else { Ok(()) }
    }

    /// Gives the ledger to whoever serves it.
    pub async fn end_takeover(&self) -> Result<(), StoreError> {
        let open = "UPDATE log_head SET epoch = $1 WHERE bucket = $2 AND epoch = $3";
        let open = Statement::new(open, [EPOCH.into(), BUCKET.into(), NOBODYS_EPOCH.into()]);
        let mark = Statement::new("DELETE FROM ledger_facts WHERE name = $1", [MARK.into()]);
        self.write(vec![open, mark]).await.map(drop)
    }
}

pub(super) fn somebody_else() -> StoreError {
    StoreError::Corrupt {
        table: "log_head".to_owned(),
        column: "position".to_owned(),
        what: "somebody else writes to this ledger while it is taken over".to_owned(),
    }
}
