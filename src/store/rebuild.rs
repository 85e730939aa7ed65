//! Live tables made anew beside those that are in use, compared with them, and put in their place.
//!
//! Hides how each engine makes, fills, compares and swaps tables. Promises that a step is one transaction, together with the
//! statements that say how far it has come; that one rebuild at a time runs on a ledger, and that whoever was killed is not
//! waited for; and that the swap happens under the head's lock, so that no append falls between the old tables and the new.
//! It must never decide what a row is: rows come from folding streams.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{
    BUCKET, Cell, Column, LiveRow, LiveTable, Statement, Store, StoreError, StoredEvent, StreamId, postgres,
    sqlite,
};

/// The counters of stock, as a table that is compared: `projections/stock.sql`
pub static STOCK: LiveTable = LiveTable {
    name: "stock_v1",
    written_by: &["definition", "allotment", "coupon"],
    columns: &[Column::Int("definition_id"), Column::Int("stock"), Column::Int("issued")],
    key_columns: 1,
    indexed: &[],
};

/// The counters of members, likewise: `projections/member_counts.sql`
pub static MEMBER_COUNTS: LiveTable = LiveTable {
    name: "member_counts_v1",
    written_by: &["coupon"],
    columns: &[Column::Int("member_id"), Column::Int("definition_id"), Column::Int("issued")],
    key_columns: 2,
    indexed: &[],
};

/// Whether a table holds counters, which are moved by differences.
#[must_use]
pub fn is_counter(table: &LiveTable) -> bool {
    std::ptr::eq(table, &raw const STOCK) || std::ptr::eq(table, &raw const MEMBER_COUNTS)
}

/// What a table beside a live one is called while it is filled …
pub const NEW: &str = "_new";

/// … and what the live one is called once another has its place.
pub const OLD: &str = "_old";

/// A row's place: the columns of a key are numbers, in every live table.
#[derive(Clone, Debug)]
pub struct RowKey {
    /// In which table.
    pub table: &'static LiveTable,
    /// The key's columns behind `bucket`.
    pub key: Vec<i64>,
}

impl RowKey {
    /// Where a row belongs.
    #[must_use]
    pub fn of(row: &LiveRow) -> Self {
        Self { table: row.table, key: key_of(row.table, &row.cells) }
    }
}

/// The key among a row's cells.
#[must_use]
pub fn key_of(table: &LiveTable, cells: &[Cell]) -> Vec<i64> {
    let key = cells.iter().take(table.key_columns);
    key.map(|cell| if let Cell::Int(value) = cell { *value } else { 0 }).collect()
}

/// What some streams write into tables that are made anew.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Rows that are taken away first.
    pub gone: Vec<RowKey>,
    /// Rows, whole; none of them is there.
    pub rows: Vec<LiveRow>,
    /// The stock by its key, −1 = unlimited.
    pub stock: BTreeMap<i64, i64>,
    /// What was issued, by the stock's key: so many more.
    pub issued: BTreeMap<i64, i64>,
    /// The same by member and definition.
    pub member_counts: BTreeMap<(i64, i64), i64>,
}

/// The old row and the new one of a key; one of them may be missing.
pub type Pair = (Option<Vec<Cell>>, Option<Vec<Cell>>);

/// Where the old rows and the new ones differ, in a part of a table.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Both rows, by their key.
    pub differences: BTreeMap<Vec<i64>, Pair>,
    /// The last key of the part; None = it reaches to the end.
    pub until: Option<Vec<i64>>,
    /// The head's position when both were read.
    pub head: i64,
}

/// What a swap is about.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The tables whose new versions are put in the place of the old.
    pub tables: Vec<&'static LiveTable>,
    /// The position that the new ones are as of.
    pub position: i64,
    /// At most so many events are caught up with under the lock.
    pub most: i64,
}

/// What became of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The new tables are live.
    Done {
        /// The head's position.
        head: i64,
        /// How long its lock was held.
        held: Duration,
    },
    /// Too much has been written meanwhile, or the tables were never free: catch up, and try again.
    Behind,
}

/// Who rebuilds. There is one at a time on a ledger.
pub enum Rebuilder {
    /// SQLite: on the writing connection.
    Sqlite(sqlite::Rebuilder),
    /// PostgreSQL: on a connection of its own.
    Postgres(Box<postgres::Rebuilder>),
}

impl Store {
    /// Makes this process the one that rebuilds; None while another does.
    pub async fn rebuilder(&self) -> Result<Option<Rebuilder>, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.rebuilder().map(Rebuilder::Sqlite),
            Self::Postgres(store) => {
                store.rebuilder().await?.map(|rebuilder| Rebuilder::Postgres(Box::new(rebuilder)))
            }
        })
    }

    /// Whether somebody rebuilds just now.
    pub async fn is_rebuilding(&self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(store) => Ok(store.is_rebuilding()),
            Self::Postgres(store) => store.is_rebuilding().await,
        }
    }

    /// Which of these tables there are.
    pub async fn tables_among(&self, names: &[String]) -> Result<Vec<String>, StoreError> {
        let sql = match self {
            Self::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres(_) => "SELECT CAST($1 AS TEXT) WHERE to_regclass($1) IS NOT NULL",
        };
        let sets = names.iter().map(|name| vec![name.as_str().into()]).collect();
        let found = self.query_each(sql, sets).await?;
        Ok(names
            .iter()
            .zip(found)
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(name, _)| name.clone())
            .collect())
    }

    /// Under the head's lock: shows a stream and the live rows at these keys to `decide`, and writes what it says into the
    /// live tables.
    pub async fn repair<E: From<StoreError> + Send + 'static>(
        &self,
        stream: StreamId,
        keys: Vec<RowKey>,
        decide: impl FnOnce(Vec<StoredEvent>, Vec<Option<Vec<Cell>>>) -> Result<Change, E> + Send + 'static,
    ) -> Result<(), E> {
        match self {
            Self::Sqlite(store) => store.repair(stream, keys, decide).await,
            Self::Postgres(store) => store.repair(stream, keys, decide).await,
        }
    }
}

impl Rebuilder {
    /// Makes a new table beside each of these, in one transaction with the statements. `id` tells this rebuild from others.
    pub async fn create(
        &mut self,
        tables: &[&'static LiveTable],
        id: i64,
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(rebuilder) => rebuilder.create(tables.to_vec(), id, also).await,
            Self::Postgres(rebuilder) => rebuilder.create(tables, also).await,
        }
    }

    /// Writes into the new tables, in one transaction with the statements.
    pub async fn write(&mut self, change: Change, also: Vec<Statement>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(rebuilder) => rebuilder.write(change, also).await,
            Self::Postgres(rebuilder) => rebuilder.write(&change, also).await,
        }
    }

    /// Makes whatever of their keys and indexes is made once they are full.
    pub async fn index(&mut self, tables: &[&'static LiveTable]) -> Result<(), StoreError> {
        match self {
            // There it would be one long transaction of the one writing connection: they are filled with the rows.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(rebuilder) => rebuilder.index(tables).await,
        }
    }

    /// Compares a part of a table with the one beside it, as of one moment: what lies behind a key, some thousand rows.
    pub async fn compare(
        &mut self,
        table: &'static LiveTable,
        after: Option<Vec<i64>>,
    ) -> Result<Comparison, StoreError> {
        match self {
            Self::Sqlite(rebuilder) => rebuilder.compare(table, after).await,
            Self::Postgres(rebuilder) => rebuilder.compare(table, after.as_deref()).await,
        }
    }

    /// Under the head's lock: shows the streams that events behind the position belong to, writes what `fold` says of them,
    /// and puts the new tables in the place of the old, in one transaction with the statements.
    pub async fn swap<E: From<StoreError> + Send + 'static>(
        &mut self,
        swap: Swap,
        fold: impl FnOnce(Vec<Vec<StoredEvent>>, i64) -> Result<(Change, Vec<Statement>), E> + Send + 'static,
    ) -> Result<Swapped, E> {
        match self {
            Self::Sqlite(rebuilder) => rebuilder.swap(swap, fold).await,
            Self::Postgres(rebuilder) => rebuilder.swap(swap, fold).await,
        }
    }

    /// Takes tables away, where they are there, in bounded steps; then runs the statements.
    pub async fn drop_tables(
        &mut self,
        tables: &[(&'static LiveTable, &'static str)],
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(rebuilder) => rebuilder.drop_tables(tables.to_vec(), also).await,
            Self::Postgres(rebuilder) => rebuilder.drop_tables(tables, also).await,
        }
    }

    /// Lets others rebuild.
    pub async fn release(self) {
        if let Self::Postgres(rebuilder) = self {
            rebuilder.release().await;
        }
    }
}

/// How many rows of each side are compared at a time.
const COMPARED_AT_A_TIME: usize = 2_000;

fn tuple(values: impl IntoIterator<Item = String>) -> String {
    values.into_iter().collect::<Vec<_>>().join(", ")
}

fn keys(table: &LiveTable) -> String {
    let names = table.columns.iter().take(table.key_columns).copied();
    tuple(names.map(|column| column.name().to_owned()))
}

/// One range of the primary key. The first column of the key is bounded by itself as well: SQLite walks an index by a row
/// of values only where they are all of its columns that are left, and would begin each part at the table's first row.
fn bounds(table: &LiveTable, after: Option<&[i64]>, until: Option<&[i64]>) -> String {
    let mut text = format!("bucket = {BUCKET}");
    for (sign, key) in [(">", after), ("<=", until)] {
        if let (Some(key), Some(column)) = (key, table.columns.first()) {
            let first = key.first().copied().unwrap_or_default();
            let key = tuple(key.iter().map(ToString::to_string));
            let wide = if sign == ">" { ">=" } else { "<=" };
            let column = column.name();
            let _ = write!(text, " AND {column} {wide} {first} AND ({}) {sign} ({key})", keys(table));
        }
    }
    text
}

/// Asks for the last key of a part of a table. Keys are numbers, so they may stand in the text.
pub(super) fn part_sql(from: &str, table: &LiveTable, after: Option<&[i64]>) -> String {
    let (keys, bounds) = (keys(table), bounds(table, after, None));
    let skipped = COMPARED_AT_A_TIME - 1;
    format!("SELECT {keys} FROM {from} WHERE {bounds} ORDER BY bucket, {keys} LIMIT 1 OFFSET {skipped}")
}

/// Asks for the rows of a part that are in one table only: `side` is 0 for the old one's, 1 for the new one's.
pub(super) fn differences_sql(
    old: Option<&str>,
    new: &str,
    table: &LiveTable,
    after: Option<&[i64]>,
    until: Option<&[i64]>,
) -> String {
    let columns = tuple(table.columns.iter().map(|column| column.name().to_owned()));
    let bounds = bounds(table, after, until);
    // A member's count of 0 may be written down or not.
    let counting = if std::ptr::eq(table, &raw const MEMBER_COUNTS) { " AND issued <> 0" } else { "" };
    // A table that was dropped is one without rows.
    let nothing = if old.is_none() { " AND 1 = 0" } else { "" };
    let old = format!("SELECT {columns} FROM {} WHERE {bounds}{counting}{nothing}", old.unwrap_or(new));
    let new = format!("SELECT {columns} FROM {new} WHERE {bounds}{counting}");
    format!(
        "SELECT CAST(0 AS BIGINT) AS side, a.* FROM ({old} EXCEPT {new}) AS a
         UNION ALL SELECT CAST(1 AS BIGINT), b.* FROM ({new} EXCEPT {old}) AS b"
    )
}

/// The smaller of two ends of a part, where a missing one is the end of the table.
pub(super) fn nearer(one: Option<Vec<i64>>, other: Option<Vec<i64>>) -> Option<Vec<i64>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Comparison {
    /// Takes a row that is on one side only.
    pub(super) fn take(&mut self, table: &LiveTable, side: i64, cells: Vec<Cell>) {
        let found = self.differences.entry(key_of(table, &cells)).or_default();
        if side == 0 {
            found.0 = Some(cells);
        } else {
            found.1 = Some(cells);
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

/// The streams that events belong to, each once.
pub(super) fn touched(events: &[StoredEvent]) -> Vec<(String, String)> {
    let mut streams: Vec<_> =
        events.iter().map(|event| (event.aggregate_type.clone(), event.aggregate_id.clone())).collect();
    streams.sort_unstable();
    streams.dedup();
    streams
}

/// Deletes the row of a key.
pub(super) fn delete_sql(name: &str, table: &LiveTable, place: impl Fn(usize) -> String) -> String {
    let columns = table.columns.iter().take(table.key_columns).enumerate();
    let same = columns.map(|(number, column)| format!("{} = {}", column.name(), place(number)));
    format!("DELETE FROM {name} WHERE bucket = {BUCKET} AND {}", same.collect::<Vec<_>>().join(" AND "))
}
