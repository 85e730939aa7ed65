//! Scratch ledgers on SQLite: in memory, or in a file that is nobody's. Unlike a ledger's, their I/O errors end nothing.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::super::connect::OpenError;
use super::super::rebuild::by_table;
use super::super::{
    BUCKET, Effects, LiveRow, Statement, StockChange, StockOf, StoreError, StoredEvent, migrate,
};
use super::{READ_WRITE, SqliteStore, connect, live, open_reader, rows};

/// A member's count is the number of coupons issued to him that still count; its row is his own row of the wallet.
const COUNT_MEMBERS: &str = "INSERT INTO member_counts_v1 (bucket, member_id, definition_id, issued)
     SELECT bucket, issued_to, definition_id, COUNT(*) FROM wallet_v1
     WHERE member_id = issued_to AND voided = 0 GROUP BY bucket, issued_to, definition_id";

/// What each definition has issued, and what was taken of each allotment, by the keys of their stock.
const COUNT_ISSUED: &str =
    "SELECT definition_id, CAST(SUM(issued) AS BIGINT) FROM member_counts_v1 GROUP BY definition_id
     UNION ALL
     SELECT -allotment_id, COUNT(*) FROM partner_coupons_v1 WHERE voided = 0 GROUP BY allotment_id";

impl SqliteStore {
    /// A new ledger in memory, under a name that its threads share.
    pub(in crate::store) fn open_in_memory(name: &str) -> Result<Self, OpenError> {
        let open = || -> Result<Connection, OpenError> {
            let connection = connect(name, READ_WRITE | OpenFlags::SQLITE_OPEN_URI)?;
            // Without a WAL readers and the writer wait for each other.
            connection.busy_timeout(Duration::from_secs(10))?;
            Ok(connection)
        };
        let mut writer = open()?;
        writer.execute_batch("PRAGMA recursive_triggers = ON")?;
        migrate::sqlite(&mut writer, 0)?;
        let reader = || {
            let connection = open()?;
            connection.execute_batch("PRAGMA query_only = ON")?;
            Ok(connection)
        };
        Self::start(Some((writer, None)), reader, None)
    }

    /// A new ledger in this file, which is empty. What a power cut leaves of it is worthless, so nothing waits for the disk.
    pub(in crate::store) fn open_scratch_file(path: &Path) -> Result<Self, OpenError> {
        let mut writer = connect(path, READ_WRITE)?;
        writer.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = OFF;
             PRAGMA recursive_triggers = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -65536;",
        )?;
        migrate::sqlite(&mut writer, 0)?;
        Self::start(Some((writer, None)), || open_reader(path), None)
    }

    /// Makes one file of a scratch ledger whose threads have ended, readable where nothing can be written beside it.
    pub(in crate::store) fn settle_file(path: &Path) -> Result<(), OpenError> {
        let connection = Connection::open(path)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        match mode.as_str() {
            "delete" => Ok(()),
            _ => Err(OpenError::UnsafeSetting { setting: "journal_mode".to_owned(), value: mode }),
        }
    }

    pub(in crate::store) async fn put_events(&self, events: Vec<StoredEvent>) -> Result<(), StoreError> {
        self.putting(move |connection| insert_events(connection, &events)).await
    }

    pub(in crate::store) async fn put_rows(&self, rows: Vec<LiveRow>) -> Result<(), StoreError> {
        self.putting(move |connection| upsert_rows(connection, &rows)).await
    }

    pub(in crate::store) async fn put_further(
        &self,
        events: Vec<StoredEvent>,
        effects: Vec<Effects>,
    ) -> Result<(), StoreError> {
        self.putting(move |connection| {
            insert_events(connection, &events)?;
            if let Some(last) = events.last() {
                connection
                    .prepare_cached("UPDATE log_head SET position = ?1, last_ms = ?2 WHERE bucket = ?3")?
                    .execute((last.position, last.recorded_at_ms, BUCKET))?;
            }
            effects.iter().try_for_each(|effects| move_by(connection, effects))
        })
        .await
    }

    pub(in crate::store) async fn put_counters(
        &self,
        stock: Vec<(StockOf, Option<i64>)>,
    ) -> Result<(), StoreError> {
        self.putting(move |connection| {
            connection.execute_batch(COUNT_MEMBERS)?;
            let mut issued = connection.prepare(COUNT_ISSUED)?;
            let issued: HashMap<i64, i64> =
                issued.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            let mut insert = connection.prepare(
                "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (of, stock) in stock {
                let key = of.key();
                let issued = issued.get(&key).copied().unwrap_or_default();
                insert.execute([BUCKET, key, stock.unwrap_or(-1), issued])?;
            }
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn put(&self, statements: Vec<Statement>) -> Result<(), StoreError> {
        self.putting(move |connection| {
            for Statement { sql, parameters, .. } in &statements {
                rows(connection, sql, parameters)?;
            }
            Ok(())
        })
        .await
    }

    /// One transaction on the writing connection; after a failure nothing of it is left, and nothing ends.
    async fn putting(
        &self,
        put: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let put = move |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            put(&transaction)?;
            Ok(transaction.commit()?)
        };
        self.inner.writer.run(false, put).await?
    }
}

/// Writes events exactly as they are.
pub(super) fn insert_events(connection: &Connection, events: &[StoredEvent]) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                             payload, metadata, recorded_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for event in events {
        insert.execute(params![
            BUCKET,
            event.position,
            event.aggregate_type,
            event.aggregate_id,
            event.sequence,
            event.event_type,
            event.event_version,
            event.payload,
            event.metadata,
            event.recorded_at_ms,
        ])?;
    }
    Ok(())
}

fn upsert_rows(connection: &Connection, rows: &[LiveRow]) -> Result<(), StoreError> {
    for (table, rows) in by_table(rows) {
        live::upsert(connection, table.name, table, &rows)?;
    }
    Ok(())
}

/// Writes the rows of a change and moves its counters. A coupon may be counted before the stock of its definition is set:
/// streams come in any order.
fn move_by(connection: &Connection, effects: &Effects) -> Result<(), StoreError> {
    upsert_rows(connection, &effects.rows)?;
    for change in &effects.stock {
        let (sql, number) = match *change {
            StockChange::Set { stock, .. } => (
                "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock",
                stock.unwrap_or(-1),
            ),
            StockChange::Issued { by, .. } => (
                "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (bucket, definition_id) DO UPDATE SET issued = issued + excluded.issued",
                by,
            ),
        };
        connection.prepare_cached(sql)?.execute((BUCKET, change.of().key(), number))?;
    }
    let mut count = connection.prepare_cached(
        "INSERT INTO member_counts_v1 (bucket, member_id, definition_id, issued) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = issued + excluded.issued",
    )?;
    for change in &effects.member_counts {
        count.execute((BUCKET, change.member_id, change.definition_id, change.by))?;
    }
    Ok(())
}
