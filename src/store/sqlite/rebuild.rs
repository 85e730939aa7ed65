//! Rebuild on SQLite: bounded jobs of the writing connection behind appends, comparisons on the reading ones.
//!
//! Indexes are filled with the rows: making one afterwards would hold the one writing connection for seconds. They keep the
//! names they are made with, which end with the rebuild's number, because SQLite cannot give an index another name.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::super::rebuild::{
    Change, Comparison, NEW, OLD, RowKey, Swap, Swapped, by_table, delete_sql, differences_sql, nearer,
    part_sql, touched,
};
use super::super::{BUCKET, Cell, LiveTable, Row, Statement, StoreError, StoredEvent, StreamId, migrate};
use super::{SqliteStore, end_process_on_io_error, live, read_event, rows};

/// Rows that are taken away in one transaction.
const DROPPED_AT_A_TIME: usize = 500;

const OF_STREAM: &str =
    "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at_ms
     FROM events WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND bucket = ?3 ORDER BY sequence";

/// Who rebuilds.
pub struct Rebuilder {
    store: SqliteStore,
    _only: Only,
}

/// The right to rebuild, given back when it is dropped.
struct Only(Arc<AtomicBool>);

impl Drop for Only {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl SqliteStore {
    pub(in crate::store) fn rebuilder(&self) -> Option<Rebuilder> {
        let flag = self.inner.rebuilding.clone();
        let taken = flag.swap(true, Ordering::SeqCst);
        (!taken).then(|| Rebuilder { store: self.clone(), _only: Only(flag) })
    }

    pub(in crate::store) fn is_rebuilding(&self) -> bool {
        self.inner.rebuilding.load(Ordering::SeqCst)
    }

    pub(in crate::store) async fn repair<E: From<StoreError> + Send + 'static>(
        &self,
        stream: StreamId,
        keys: Vec<RowKey>,
        decide: impl FnOnce(Vec<StoredEvent>, Vec<Option<Vec<Cell>>>) -> Result<Change, E> + Send + 'static,
    ) -> Result<(), E> {
        self.step(move |connection| {
            let events = load(connection, stream.kind, &stream.id.to_string())?;
            let found: Result<Vec<_>, StoreError> = keys.iter().map(|key| row_at(connection, key)).collect();
            write_change(connection, "", &decide(events, found?)?)?;
            Ok(())
        })
        .await
    }

    /// One transaction of the writing connection, behind appends. A full disk leaves everything as it was, and is no reason
    /// to end a server: what is made anew is nobody's answer yet.
    async fn step<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let job = move |connection: &mut Connection| -> Result<T, E> {
            connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
            let done = work(connection)
                .and_then(|done| Ok(connection.execute_batch("COMMIT").map(|()| done).map_err(failed)?));
            if done.is_err()
                && !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                end_process_on_io_error(&error);
            }
            done
        };
        self.inner.writer.run(false, job).await?
    }
}

/// An error of a statement of a rebuild.
fn failed(error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
        end_process_on_io_error(&error);
    }
    error.into()
}

fn load(connection: &Connection, kind: &str, id: &str) -> Result<Vec<StoredEvent>, StoreError> {
    let mut events = connection.prepare_cached(OF_STREAM)?;
    let found = events.query_map(params![kind, id, BUCKET], read_event)?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn row_at(connection: &Connection, key: &RowKey) -> Result<Option<Vec<Cell>>, StoreError> {
    let names: Vec<&str> = key.table.columns.iter().map(|column| column.name()).collect();
    let (keys, _) = names.split_at(key.table.key_columns.min(names.len()));
    let same: Vec<String> = keys.iter().zip(1..).map(|(name, place)| format!("{name} = ${place}")).collect();
    let sql = format!(
        "SELECT {} FROM {} WHERE bucket = {BUCKET} AND {}",
        names.join(", "),
        key.table.name,
        same.join(" AND ")
    );
    let parameters: Vec<Cell> = key.key.iter().copied().map(Cell::from).collect();
    Ok(rows(connection, &sql, &parameters)?.into_iter().next().map(|row| row.0))
}

/// Writes a change into the tables that have this behind their names.
fn write_change(connection: &Connection, suffix: &str, change: &Change) -> Result<(), StoreError> {
    for RowKey { table, key } in &change.gone {
        let sql = delete_sql(&format!("{}{suffix}", table.name), table, |place| format!("?{}", place + 1));
        connection.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(key)).map_err(failed)?;
    }
    for (table, rows) in by_table(&change.rows) {
        live::upsert(connection, &format!("{}{suffix}", table.name), table, &rows).map_err(failed)?;
    }
    let insert = |table: &str, columns: &str, keys: &str, update: &str| {
        let values = if columns.contains("member_id") { "?1, ?2, ?3, ?4" } else { "?1, ?2, ?3, 0" };
        format!(
            "INSERT INTO {table}{suffix} AS t (bucket, {columns}) VALUES ({values})
             ON CONFLICT (bucket, {keys}) DO UPDATE SET {update}"
        )
    };
    if !change.stock.is_empty() {
        let sql =
            insert("stock_v1", "definition_id, stock, issued", "definition_id", "stock = excluded.stock");
        let mut set = connection.prepare_cached(&sql)?;
        for (key, stock) in &change.stock {
            set.execute((BUCKET, key, stock)).map_err(failed)?;
        }
    }
    if !change.issued.is_empty() {
        let add = "issued = t.issued + excluded.issued";
        let sql = insert("stock_v1", "definition_id, issued, stock", "definition_id", add);
        let mut add = connection.prepare_cached(&sql)?;
        for (key, by) in &change.issued {
            add.execute((BUCKET, key, by)).map_err(failed)?;
        }
    }
    if !change.member_counts.is_empty() {
        let (columns, keys) = ("member_id, definition_id, issued", "member_id, definition_id");
        let sql = insert("member_counts_v1", columns, keys, "issued = t.issued + excluded.issued");
        let mut add = connection.prepare_cached(&sql)?;
        for ((member_id, definition_id), by) in &change.member_counts {
            add.execute((BUCKET, member_id, definition_id, by)).map_err(failed)?;
        }
    }
    Ok(())
}

fn run_all(connection: &Connection, statements: &[Statement]) -> Result<(), StoreError> {
    for statement in statements {
        rows(connection, statement.sql, &statement.parameters)?;
    }
    Ok(())
}

fn exists(connection: &Connection, table: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
    Ok(connection.query_row(sql, [table], |_| Ok(())).optional()?.is_some())
}

fn head_of(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT position FROM log_head WHERE bucket = ?1")?
        .query_row([BUCKET], |row| row.get(0))?)
}

impl Rebuilder {
    pub(in crate::store) async fn create(
        &self,
        tables: Vec<&'static LiveTable>,
        id: i64,
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        self.store
            .step(move |connection| {
                for table in tables {
                    let named = |name: &str| {
                        if name == table.name { format!("{name}{NEW}") } else { format!("{name}_{id}") }
                    };
                    for statement in migrate::definition(table.name, true, named) {
                        connection.execute_batch(&statement).map_err(failed)?;
                    }
                }
                run_all(connection, &also)
            })
            .await
    }

    pub(in crate::store) async fn write(
        &self,
        change: Change,
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        self.store
            .step(move |connection| {
                write_change(connection, NEW, &change)?;
                run_all(connection, &also)
            })
            .await
    }

    pub(in crate::store) async fn compare(
        &self,
        table: &'static LiveTable,
        after: Option<Vec<i64>>,
    ) -> Result<Comparison, StoreError> {
        let compare = move |connection: &mut Connection| -> Result<Comparison, StoreError> {
            let snapshot = connection.transaction()?;
            compare_part(&snapshot, table, after.as_deref())
        };
        self.store.inner.readers.run(false, compare).await?
    }

    pub(in crate::store) async fn swap<E: From<StoreError> + Send + 'static>(
        &self,
        swap: Swap,
        fold: impl FnOnce(Vec<Vec<StoredEvent>>, i64) -> Result<(Change, Vec<Statement>), E> + Send + 'static,
    ) -> Result<Swapped, E> {
        self.store
            .step(move |connection| {
                let begun = Instant::now();
                let head = head_of(connection)?;
                if head - swap.position > swap.most {
                    return Ok(Swapped::Behind);
                }
                let streams = streams_behind(connection, swap.position)?;
                let (change, also) = fold(streams, head)?;
                write_change(connection, NEW, &change)?;
                for table in swap.tables {
                    let name = table.name;
                    if exists(connection, name)? {
                        let rename = format!("ALTER TABLE {name} RENAME TO {name}{OLD}");
                        connection.execute_batch(&rename).map_err(failed)?;
                    }
                    let rename = format!("ALTER TABLE {name}{NEW} RENAME TO {name}");
                    connection.execute_batch(&rename).map_err(failed)?;
                }
                run_all(connection, &also)?;
                Ok(Swapped::Done { head, held: begun.elapsed() })
            })
            .await
    }

    pub(in crate::store) async fn drop_tables(
        &self,
        tables: Vec<(&'static LiveTable, &'static str)>,
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        for (table, suffix) in tables {
            let name = format!("{}{suffix}", table.name);
            while !self.drop_some(table, name.clone()).await? {}
        }
        self.store.step(move |connection| run_all(connection, &also)).await
    }

    /// Takes some rows away, or the empty table; true when it is gone.
    async fn drop_some(&self, table: &'static LiveTable, name: String) -> Result<bool, StoreError> {
        self.store
            .step(move |connection| {
                if !exists(connection, &name)? {
                    return Ok(true);
                }
                let keys: Vec<&str> =
                    table.columns.iter().take(table.key_columns).map(|column| column.name()).collect();
                let keys = keys.join(", ");
                let some = format!(
                    "DELETE FROM {name} WHERE bucket = {BUCKET} AND ({keys}) IN
                     (SELECT {keys} FROM {name} WHERE bucket = {BUCKET} LIMIT {DROPPED_AT_A_TIME})"
                );
                let gone = connection.execute(&some, []).map_err(failed)?;
                if gone == 0 {
                    connection.execute_batch(&format!("DROP TABLE {name}")).map_err(failed)?;
                }
                Ok(gone == 0)
            })
            .await
    }
}

fn compare_part(
    connection: &Connection,
    table: &'static LiveTable,
    after: Option<&[i64]>,
) -> Result<Comparison, StoreError> {
    let new = format!("{}{NEW}", table.name);
    let old = exists(connection, table.name)?.then_some(table.name);
    let end_of = |from: &str| -> Result<Option<Vec<i64>>, StoreError> {
        let last: Vec<Row> = uncached_rows(connection, &part_sql(from, table, after))?;
        Ok(last.first().map(|row| (0..table.key_columns).map(|place| row.int(place)).collect()))
    };
    let until = nearer(end_of(&new)?, old.map(end_of).transpose()?.flatten());
    let mut comparison = Comparison { until, head: head_of(connection)?, ..Comparison::default() };
    let sql = differences_sql(old, &new, table, after, comparison.until.as_deref());
    for row in uncached_rows(connection, &sql)? {
        let side = row.int(0);
        comparison.take(table, side, row.0.into_iter().skip(1).collect());
    }
    Ok(comparison)
}

/// A text that is never asked again stays out of the cache of those that are.
fn uncached_rows(connection: &Connection, sql: &str) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(super::read_row(row, columns, sql)?);
    }
    Ok(rows)
}

/// The streams that events behind a position belong to.
fn streams_behind(connection: &Connection, position: i64) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
    let mut behind = connection.prepare_cached(
        "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                recorded_at_ms
         FROM events WHERE bucket = ?1 AND position > ?2 ORDER BY position",
    )?;
    let events = behind.query_map((BUCKET, position), read_event)?.collect::<Result<Vec<_>, _>>()?;
    let streams: HashSet<_> = touched(&events).into_iter().collect();
    streams.iter().map(|(kind, id)| load(connection, kind, id)).collect()
}
