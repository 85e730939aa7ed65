//! Reading the log stream by stream, and writing every live table anew.

use super::{BUCKET, LiveRow, LiveTable, SqliteStore, Store, StoreError, postgres};

/// An event as it is met in passing.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Its place in the log.
    pub position: i64,
    /// The aggregate's type.
    pub aggregate_type: &'a str,
    /// The aggregate's id.
    pub aggregate_id: &'a str,
    /// Its place in its stream.
    pub sequence: i64,
    /// The event's name.
    pub event_type: &'a str,
    /// The version of its shape.
    pub event_version: &'a str,
    /// The very bytes that were serialised.
    pub payload: &'a str,
}

/// Whoever meets events one after the other.
pub trait Visitor: Send + 'static {
    /// The next one.
    fn meet(&mut self, event: EventRef<'_>);
}

/// A part of the ids of one kind, from the first up to but without the last, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub from: String,
    /// Behind the last.
    pub until: String,
}

impl IdRange {
    /// All decimal ids, cut where their first three digits change: parts that are read side by side, and few enough
    /// rows each to be held at a time.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut ranges = Vec::with_capacity(999);
        for prefix in 1..=999_i64 {
            let from = prefix.to_string();
            // A prefix of one or two digits stands for itself alone; "100" for every id that begins with it.
            let until = if prefix < 100 { format!("{from}0") } else { format!("{from}:") };
            ranges.push(Self { from, until });
        }
        ranges
    }
}

/// One index walk.
pub(super) const SCAN: &str =
    "SELECT position, aggregate_id, sequence, event_type, event_version, CAST(payload AS TEXT)
     FROM events WHERE aggregate_type = $1 AND aggregate_id >= $2 AND aggregate_id < $3 AND bucket = $4
     ORDER BY aggregate_type, aggregate_id, sequence";

/// A member's count is the number of coupons issued to him that still count; its row is his own row of the wallet.
pub(super) const COUNT_MEMBERS: &str =
    "INSERT INTO member_counts_v1 (bucket, member_id, definition_id, issued)
     SELECT bucket, issued_to, definition_id, COUNT(*) FROM wallet_v1
     WHERE member_id = issued_to AND voided = 0 GROUP BY bucket, issued_to, definition_id";

/// What each definition has issued, and what was taken of each allotment, by the keys of their stock.
pub(super) const COUNT_ISSUED: &str =
    "SELECT definition_id, CAST(SUM(issued) AS BIGINT) FROM member_counts_v1 GROUP BY definition_id
     UNION ALL
     SELECT -allotment_id, COUNT(*) FROM partner_coupons_v1 WHERE voided = 0 GROUP BY allotment_id";

/// Every live table and counter, emptied and written anew in one transaction that holds the head.
pub enum Rebuilding {
    /// SQLite: a transaction on the writing connection.
    Sqlite(SqliteStore),
    /// PostgreSQL: a transaction on a connection of its own.
    Postgres(Box<postgres::Rebuilding>),
}

impl Store {
    /// Meets every event of one kind in a range of ids, stream by stream, each stream in order. Returns the visitor.
    pub async fn scan<V: Visitor>(
        &self,
        kind: &'static str,
        range: IdRange,
        visitor: V,
    ) -> Result<V, StoreError> {
        match self {
            Self::Sqlite(store) => store.scan(kind, range, visitor).await,
            Self::Postgres(store) => store.scan(kind, range, visitor).await,
        }
    }

    /// Locks the head and empties these live tables and all counters. Nobody else writes until it is finished or
    /// abandoned.
    pub async fn rebuild(&self, tables: &[&'static str]) -> Result<Rebuilding, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => {
                store.begin_rebuild(tables.to_vec()).await?;
                Rebuilding::Sqlite(store.clone())
            }
            Self::Postgres(store) => Rebuilding::Postgres(Box::new(store.begin_rebuild(tables).await?)),
        })
    }
}

impl Rebuilding {
    /// Writes rows, each new.
    pub async fn insert(&mut self, rows: Vec<LiveRow>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.insert_rebuilt(rows).await,
            Self::Postgres(rebuilding) => rebuilding.insert(&rows).await,
        }
    }

    /// Leaves everything as it was.
    pub async fn abandon(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.abandon_rebuild().await,
            // The connection ends, and its transaction with it.
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Counts, brings the indexes back, and commits. `stock` is by the stock's key: None = unlimited.
    pub async fn finish(self, stock: Vec<(i64, Option<i64>)>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.finish_rebuild(stock).await,
            Self::Postgres(rebuilding) => rebuilding.finish(stock).await,
        }
    }
}

/// Rows by their tables: each table's statement is made once.
pub(super) fn by_table(rows: &[LiveRow]) -> Vec<(&'static LiveTable, Vec<&LiveRow>)> {
    let mut tables: Vec<(&'static LiveTable, Vec<&LiveRow>)> = Vec::new();
    for row in rows {
        match tables.iter_mut().find(|(table, _)| std::ptr::eq(*table, row.table)) {
            Some((_, own)) => own.push(row),
            None => tables.push((row.table, vec![row])),
        }
    }
    tables
}

/// (bucket, key, stock or −1, issued) as `stock_v1` has them.
pub(super) fn stock_rows(stock: &[(i64, Option<i64>)], issued: &[(i64, i64)]) -> Vec<[i64; 4]> {
    let issued: std::collections::HashMap<i64, i64> = issued.iter().copied().collect();
    let row = |(id, stock): &(i64, Option<i64>)| {
        [BUCKET, *id, stock.unwrap_or(-1), issued.get(id).copied().unwrap_or_default()]
    };
    stock.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::IdRange;

    #[test]
    fn every_id_is_in_exactly_one_range() {
        let ranges = IdRange::all();
        for id in (1..2_000_i64).chain([9_999_999, 1_000_000, (1 << 53) - 1]) {
            let id = id.to_string();
            let within = ranges.iter().filter(|range| range.from <= id && id < range.until).count();
            assert_eq!(within, 1, "{id}");
        }
    }
}
