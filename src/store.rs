//! The event log on its two engines: load, append, read by position.
//!
//! Hides which database it is. Promises that a committed append is on disk, that positions are gapless and in commit
//! order, and that payload bytes come back as they went in. It must never decide anything about coupons: what may be
//! admitted is asked of [`admission`], which both engines share, and each engine's file holds only its statements.

pub mod admission;
mod append;
mod connect;
mod migrate;
mod postgres;
pub mod rebuild;
mod replay;
mod scratch;
mod snapshot;
mod sqlite;
pub mod statistics;
mod takeover;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

pub use append::{
    ATTEMPT_WINDOW_MS, Append, AppendError, Appended, AttemptGuard, Cell, Column, Effects, Entry, LiveRow,
    LiveTable, MAX_ATTEMPTS, MemberCountChange, OneAtATime, Outcome, Phases, RECEIPT_HASH_DIGITS, Resolved,
    ReviewText, StockChange, StockOf, receipts_hash,
};
pub use connect::{OpenError, StoreOptions, open, open_copy, open_for_takeover, open_read_only};
pub use migrate::SCHEMA_VERSION;
pub use postgres::{Link, PostgresStore, database_link, excessive_rights};
pub use rebuild::Rebuilder;
pub use replay::{EventRef, IdRange, Visitor};
pub use scratch::Scratch;
pub use snapshot::{Snapshot, copy_sqlite, look_at_sqlite};
pub use sqlite::{SqliteStore, hold_folder};
pub use takeover::{StoredReceipt, Takeover};

use crate::clock::Clock;

/// The one bucket of today. Every key carries it and every statement binds it, so that a ledger can have many.
pub const BUCKET: i64 = 0;

/// The epoch of the live read models that this program writes. A new version of one moves it; a rebuild does not.
pub const EPOCH: i64 = 1;

/// How far a process may be off the database's clock before it refuses writes.
pub const MAX_CLOCK_SKEW_MS: i64 = 2_000;

/// Names one stream: the aggregate's type and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// `coupon`, `definition`, `shop`, `job`, `grant` …
    pub kind: &'static str,
    /// The aggregate's id; the log stores it as decimal text.
    pub id: i64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// An event as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the log: gapless, in commit order, from 1.
    pub position: i64,
    /// The aggregate's type.
    pub aggregate_type: String,
    /// The aggregate's id.
    pub aggregate_id: String,
    /// Its place in its stream, from 1.
    pub sequence: i64,
    /// The event's name.
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    /// The very bytes that were serialised.
    pub payload: String,
    /// A flat map of strings, as JSON.
    pub metadata: String,
    /// When it was recorded, Unix milliseconds; never goes back.
    pub recorded_at_ms: i64,
}

impl StoredEvent {
    /// What of it makes a stream's state.
    #[must_use]
    pub fn as_ref(&self) -> EventRef<'_> {
        EventRef {
            position: self.position,
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            sequence: self.sequence,
            event_type: &self.event_type,
            event_version: &self.event_version,
            payload: &self.payload,
        }
    }
}

/// An event on its way into the log.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's name.
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    /// Serialised once; these bytes are stored and hashed.
    pub payload: String,
}

/// Events for one stream.
#[derive(Clone, Debug)]
pub struct StreamAppend {
    /// Which stream.
    pub stream: StreamId,
    /// The version the decision saw; 0 = a new stream.
    pub expected_version: i64,
    /// What to append.
    pub events: Vec<NewEvent>,
}

/// The receipt of an idempotency key: it points at the events from which the answer is rendered again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptKey {
    /// Who called.
    pub caller: String,
    /// Which operation.
    pub operation: &'static str,
    /// The key he chose.
    pub key: String,
}

/// A receipt as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The fingerprint of the request's body.
    pub request_mac: String,
    /// The first event's position.
    pub position: i64,
    /// How many events.
    pub event_count: i64,
}

/// What a database can do wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL or the way to it.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row that cannot be what this program wrote.
    #[error("{table}, column {column}: {what}")]
    Corrupt {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// What is wrong.
        what: String,
    },
    /// A statement that had to return a row did not; only inside [`Store::write`].
    #[error("rolled back")]
    RolledBack,
    /// What befell a read that answered several.
    #[error(transparent)]
    Shared(Arc<StoreError>),
    /// The engine's thread has ended.
    #[error("the database's thread has ended")]
    Closed,
}

impl StoreError {
    /// An error that says what is stored, or how, and not that it could not be asked for: a table that is gone, a column of
    /// another type, a page of the file that is none.
    pub(crate) fn is_about_data(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_about_data(),
            // A right that is missing tells nothing of what is stored.
            Self::Postgres(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => false,
            Self::Sqlite(error) => {
                use rusqlite::ErrorCode as Code;
                let code = error.sqlite_error_code();
                matches!(code, Some(Code::Unknown | Code::DatabaseCorrupt)) || self.is_statement_error()
            }
            _ => self.is_statement_error(),
        }
    }

    /// An error that lies in the statement or its data, not in the connection or its load.
    pub(crate) fn is_statement_error(&self) -> bool {
        match self {
            Self::Postgres(sqlx::Error::Database(error)) => {
                // 08 connection, 40 rollback, 53 resources, 55 lock timeouts, 57 shutdown and cancel, 58 system.
                let code = error.code().unwrap_or_default();
                !["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
            }
            Self::Postgres(
                sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_),
            )
            // A text that is none, a number that is none.
            | Self::Sqlite(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..),
            )
            | Self::Corrupt { .. } => true,
            Self::Shared(error) => error.is_statement_error(),
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
                use rusqlite::ErrorCode as Code;
                matches!(error.code, Code::ConstraintViolation | Code::TypeMismatch | Code::TooBig)
            }
            _ => false,
        }
    }
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub Vec<Cell>);

impl Row {
    /// An integer column; 0 where the row has none.
    #[must_use]
    pub fn int(&self, column: usize) -> i64 {
        match self.0.get(column) {
            Some(Cell::Int(value)) => *value,
            _ => 0,
        }
    }

    /// A text column; empty where the row has none.
    #[must_use]
    pub fn text(&self, column: usize) -> &str {
        match self.0.get(column) {
            Some(Cell::Text(value)) => value,
            _ => "",
        }
    }

    /// A text column, taken out of the row.
    pub fn take_text(&mut self, column: usize) -> String {
        match self.0.get_mut(column) {
            Some(Cell::Text(value)) => std::mem::take(value),
            _ => String::new(),
        }
    }
}

/// A statement with its parameters, written once for both engines: `$1`, `$2` …, BIGINT and TEXT only.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The text.
    pub sql: &'static str,
    /// What `$1` … stand for.
    pub parameters: Vec<Cell>,
    /// Whether the transaction is rolled back where it returns no row.
    pub must_return: bool,
}

impl Statement {
    /// A statement and its parameters.
    pub fn new(sql: &'static str, parameters: impl IntoIterator<Item = Cell>) -> Self {
        Self { sql, parameters: parameters.into_iter().collect(), must_return: false }
    }

    /// The same, on whose first row the whole transaction depends.
    #[must_use]
    pub fn must_return(self) -> Self {
        Self { must_return: true, ..self }
    }
}

/// A read whose text is made at run time, of words that this program knows: nothing that a caller sent is in it but as a
/// parameter.
#[derive(Clone, Debug)]
pub struct Look {
    /// The text.
    pub sql: String,
    /// What `$1` … stand for.
    pub parameters: Vec<Cell>,
}

/// Appends to the log.
pub enum Appender {
    /// On the one writing thread.
    Sqlite(SqliteStore),
    /// On a connection.
    Postgres(Box<postgres::Appender>),
}

impl Appender {
    /// Commits a batch in one transaction; each entry has its own outcome, in the batch's order. It is gathered when its
    /// turn has come: what waits until then goes with it. The clock gives the recorded time; PostgreSQL's own is held
    /// against it, unless a test holds the hand.
    pub async fn append(
        &mut self,
        gather: impl FnOnce() -> Arc<[Append]> + Send + 'static,
        clock: &Clock,
    ) -> Result<Appended, AppendError> {
        match self {
            Self::Sqlite(store) => store.append(gather, clock.clone()).await,
            Self::Postgres(appender) => appender.append(gather, clock).await,
        }
    }

    /// Lets go of what it keeps.
    pub async fn close(self) {
        if let Self::Postgres(appender) = self {
            appender.close().await;
        }
    }
}

/// One index walk.
const LOAD: &str = "SELECT position, sequence, event_type, event_version, CAST(payload AS TEXT), CAST(metadata AS TEXT),
                           recorded_at_ms
                    FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND bucket = $3 ORDER BY sequence";

/// The same up to a position, without what only those who read metadata need.
const LOAD_BARE: &str =
    "SELECT position, sequence, event_type, event_version, CAST(payload AS TEXT), CAST('' AS TEXT),
                                recorded_at_ms
                         FROM events
                         WHERE aggregate_type = $1 AND aggregate_id = $2 AND bucket = $3 AND +position <= $4
                         ORDER BY sequence";

/// A walk along the log, without metadata.
const BARE_AFTER: &str =
    "SELECT position, sequence, event_type, event_version, CAST(payload AS TEXT), CAST('' AS TEXT),
                                 recorded_at_ms, aggregate_type, aggregate_id
                          FROM events WHERE bucket = $1 AND position > $2 ORDER BY position LIMIT $3";

fn load_parameters(stream: StreamId) -> [Cell; 3] {
    [stream.kind.into(), stream.id.to_string().into(), BUCKET.into()]
}

fn event_of(stream: StreamId, row: Row) -> StoredEvent {
    stored_event(stream.kind.to_owned(), stream.id.to_string(), row)
}

fn stored_event(aggregate_type: String, aggregate_id: String, mut row: Row) -> StoredEvent {
    StoredEvent {
        position: row.int(0),
        aggregate_type,
        aggregate_id,
        sequence: row.int(1),
        event_type: row.take_text(2),
        event_version: row.take_text(3),
        payload: row.take_text(4),
        metadata: row.take_text(5),
        recorded_at_ms: row.int(6),
    }
}

/// How the ids of a kind are shared between this ledger and imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedIds {
    /// Ids below it are handed out by this ledger, or were.
    pub own_below: i64,
    /// Imported ids lie below it; 1 = nothing was ever imported.
    pub below: i64,
}

/// Lets the ids of a kind go on at a number, unless they are beyond it already.
#[must_use]
pub fn raise_ids(kind: &'static str, next_id: i64) -> Statement {
    Statement::new(
        "INSERT INTO id_blocks (bucket, kind, next_id) VALUES ($1, $2, $3)
         ON CONFLICT (bucket, kind) DO UPDATE SET next_id =
           CASE WHEN id_blocks.next_id < excluded.next_id THEN excluded.next_id ELSE id_blocks.next_id END",
        [BUCKET.into(), kind.into(), next_id.into()],
    )
}

/// The event log on one of its engines.
#[derive(Clone)]
pub enum Store {
    /// Embedded, in the data folder.
    Sqlite(SqliteStore),
    /// A PostgreSQL database.
    Postgres(PostgresStore),
}

impl Store {
    /// The engine and its version, for people.
    #[must_use]
    pub fn engine(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("SQLite {}", rusqlite::version()),
            Self::Postgres(store) => format!("PostgreSQL {}", store.version()),
        }
    }

    /// Whether several processes may write to this ledger.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// The events of one stream, in order; an unknown stream has none.
    pub async fn load_one(&self, stream: StreamId) -> Result<Vec<StoredEvent>, StoreError> {
        let load = Statement::new(LOAD, load_parameters(stream));
        let rows = match self {
            Self::Sqlite(store) => store.query_first(load).await?,
            Self::Postgres(store) => store.query(load).await?,
        };
        Ok(rows.into_iter().map(|row| event_of(stream, row)).collect())
    }

    /// The events of each of these streams.
    pub async fn load(&self, streams: &[StreamId]) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        self.load_by(LOAD, streams, None).await
    }

    async fn load_by(
        &self,
        sql: &'static str,
        streams: &[StreamId],
        until: Option<i64>,
    ) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        let parameters =
            |stream: &StreamId| load_parameters(*stream).into_iter().chain(until.map(Cell::Int)).collect();
        let found = self.query_each(sql, streams.iter().map(parameters).collect()).await?;
        let of_stream = |(stream, rows): (&StreamId, Vec<Row>)| {
            rows.into_iter().map(|row| event_of(*stream, row)).collect()
        };
        Ok(streams.iter().zip(found).map(of_stream).collect())
    }

    /// The same as of a position, without their metadata.
    pub async fn load_bare(
        &self,
        streams: &[StreamId],
        position: i64,
    ) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        self.load_by(LOAD_BARE, streams, Some(position)).await
    }

    /// Up to `limit` events behind a position, in order.
    pub async fn events_after(&self, position: i64, limit: i64) -> Result<Vec<StoredEvent>, StoreError> {
        match self {
            Self::Sqlite(store) => store.events_after(position, limit).await,
            Self::Postgres(store) => store.events_after(position, limit).await,
        }
    }

    /// The same without their metadata.
    pub async fn bare_events_after(&self, position: i64, limit: i64) -> Result<Vec<StoredEvent>, StoreError> {
        let rows = self.query(Statement::new(BARE_AFTER, [BUCKET, position, limit].map(Cell::Int))).await?;
        let event = |mut row: Row| stored_event(row.take_text(7), row.take_text(8), row);
        Ok(rows.into_iter().map(event).collect())
    }

    /// Someone who appends one batch after the other. On PostgreSQL it has a connection of its own, which lives on the
    /// runtime that it is used on.
    #[must_use]
    pub fn appender(&self) -> Appender {
        match self {
            Self::Sqlite(store) => Appender::Sqlite(store.clone()),
            Self::Postgres(store) => Appender::Postgres(Box::new(store.appender())),
        }
    }

    /// What the log says of appends whose commit was not answered, once their connection's transaction has ended one way
    /// or the other: where and when each stream's events of theirs begin. What is not there will never be.
    pub async fn resolve(
        &self,
        append_ids: &[String],
        after_position: i64,
    ) -> Result<Vec<Resolved>, StoreError> {
        match self {
            // In one process a commit's outcome is never unknown: an I/O error there ends the process.
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(store) => store.resolve(append_ids, after_position).await,
        }
    }

    /// The rows of a page, from the read side.
    pub async fn query(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(store) => store.query(statement).await,
            Self::Postgres(store) => store.query(statement).await,
        }
    }

    /// The rows of one statement for each of these sets of parameters, in one read.
    pub async fn query_each(
        &self,
        sql: &'static str,
        sets: Vec<Vec<Cell>>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.query_each(sql, sets).await,
            Self::Postgres(store) => store.query_each(sql, sets).await,
        }
    }

    /// Runs statements on the directory in one transaction and returns the rows of each. Never on the log. Where one
    /// that must return a row does not, all is rolled back, and the answer ends with its empty rows.
    pub async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, StoreError> {
        match self {
            Self::Sqlite(store) => store.write(statements).await,
            Self::Postgres(store) => store.write(&statements).await,
        }
    }

    /// Whether the database answers, and how far its clock is from this process's, in milliseconds.
    pub async fn ping(&self, now_ms: i64) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(store) => {
                store
                    .query(Statement::new("SELECT position FROM log_head WHERE bucket = $1", [BUCKET.into()]))
                    .await?;
                Ok(0)
            }
            Self::Postgres(store) => store.ping(now_ms).await,
        }
    }

    /// The name that this ledger's transparency log has in all the world: `coupon-ledger/` and 16 hexadecimal digits. None
    /// where no server of a version that has one ever opened it.
    pub async fn origin(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM ledger_facts WHERE name = 'origin'";
        let rows = self.query(Statement::new(sql, [])).await?;
        Ok(rows.into_iter().next().map(|mut row| row.take_text(0)))
    }

    /// The receipt of an idempotency key.
    pub async fn receipt(&self, key: &ReceiptKey) -> Result<Option<Receipt>, StoreError> {
        let rows = self
            .query(Statement::new(
                "SELECT request_mac, position, event_count FROM receipts
                 WHERE bucket = $1 AND caller = $2 AND operation = $3 AND key = $4",
                [BUCKET.into(), key.caller.as_str().into(), key.operation.into(), key.key.as_str().into()],
            ))
            .await?;
        Ok(rows.first().map(|row| Receipt {
            request_mac: row.text(0).to_owned(),
            position: row.int(1),
            event_count: row.int(2),
        }))
    }

    /// Whether a key that stands for several, each with `/` and a number behind it, was used for another request.
    pub async fn is_used_for_another(&self, key: &ReceiptKey, request_mac: &str) -> Result<bool, StoreError> {
        let sql = "SELECT position FROM receipts
                   WHERE bucket = $1 AND caller = $2 AND operation = $3 AND key > $4 AND key < $5 AND request_mac <> $6
                   LIMIT 1";
        // The character behind `/` is 0, and both are compared byte by byte.
        let (from, until) = (format!("{}/", key.key), format!("{}0", key.key));
        let parameters = [key.caller.as_str(), key.operation, &from, &until, request_mac].map(Cell::from);
        let parameters = std::iter::once(BUCKET.into()).chain(parameters);
        Ok(!self.query(Statement::new(sql, parameters)).await?.is_empty())
    }

    /// What was used under a key: of each key that begins with it and the separator, what follows, and its fingerprint.
    pub async fn receipts_under(
        &self,
        key: &ReceiptKey,
        separator: char,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let prefix = format!("{}{separator}", key.key);
        // Keys are compared as bytes, and none holds the largest character.
        let behind = format!("{prefix}{}", char::MAX);
        let rows = self
            .query(Statement::new(
                "SELECT key, request_mac FROM receipts
                 WHERE bucket = $1 AND caller = $2 AND operation = $3 AND key >= $4 AND key < $5 ORDER BY key",
                [
                    BUCKET.into(),
                    key.caller.as_str().into(),
                    key.operation.into(),
                    prefix.as_str().into(),
                    behind.into(),
                ],
            ))
            .await?;
        let rest = |key: &str| key.strip_prefix(&prefix).unwrap_or_default().to_owned();
        Ok(rows.iter().map(|row| (rest(row.text(0)), row.text(1).to_owned())).collect())
    }

    /// Reserves a block of ids and returns its first.
    pub async fn reserve_ids(&self, kind: &'static str, count: i64) -> Result<i64, StoreError> {
        let rows = self
            .write(vec![Statement::new(
                "INSERT INTO id_blocks (bucket, kind, next_id) VALUES ($1, $2, 1 + $3)
                 ON CONFLICT (bucket, kind) DO UPDATE SET next_id = id_blocks.next_id + $3
                 RETURNING next_id",
                [BUCKET.into(), kind.into(), count.into()],
            )])
            .await?;
        let next = rows.first().and_then(|rows| rows.first()).map_or(0, |row| row.int(0));
        Ok(next - count)
    }

    /// Where the ids of a kind go on, and how far imported ones reach.
    pub async fn imported_ids(&self, kind: &'static str) -> Result<ImportedIds, StoreError> {
        let sql = "SELECT kind, next_id FROM id_blocks WHERE bucket = $1 AND kind IN ($2, 'imported ' || $2)";
        let rows = self.query(Statement::new(sql, [BUCKET.into(), kind.into()])).await?;
        let next =
            |own: bool| rows.iter().find(|row| (row.text(0) == kind) == own).map_or(1, |row| row.int(1));
        Ok(ImportedIds { own_below: next(true), below: next(false) })
    }

    /// Which of these streams have begun.
    pub async fn begun(&self, kind: &'static str, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
        let sql = "SELECT position FROM events
                   WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence = 1 AND bucket = $3";
        let sets = ids.iter().map(|id| load_parameters(StreamId { kind, id: *id }).into()).collect();
        let found = self.query_each(sql, sets).await?;
        Ok(ids.iter().zip(found).filter(|(_, rows)| !rows.is_empty()).map(|(id, _)| *id).collect())
    }

    /// Leaves nothing behind of what was overwritten, as far as the engine can: SQLite's write-ahead log is written back and
    /// cut to nothing. False where a reader that still looks at it keeps it from that.
    pub async fn wipe(&self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(store) => store.wipe(false).await,
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Writes the database anew, so that nothing is left in its unused space of what an earlier version deleted; long on a
    /// large ledger. On PostgreSQL that is the administrator's to do (docs/operations.md).
    pub async fn rewrite(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.wipe(true).await.map(drop),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The last position of the log, as its head says.
    pub async fn head(&self) -> Result<i64, StoreError> {
        let sql = "SELECT position FROM log_head WHERE bucket = $1";
        let rows = self.query(Statement::new(sql, [BUCKET.into()])).await?;
        Ok(rows.first().map_or(0, |row| row.int(0)))
    }

    /// Which root secret it was started with.
    pub async fn secret_id(&self) -> Result<String, StoreError> {
        let sql = "SELECT value FROM ledger_facts WHERE name = 'secret_id'";
        let rows = self.query(Statement::new(sql, [])).await?;
        Ok(rows.into_iter().next().map(|mut row| row.take_text(0)).unwrap_or_default())
    }

    /// The rows of a statement that looks at whole tables, for as long as it takes.
    pub async fn query_whole(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(store) => store.query(statement).await,
            Self::Postgres(store) => store.query_whole(&statement).await,
        }
    }

    /// The rows of statements whose texts are made at run time, all as of one instant; for pages that add up.
    pub async fn look(&self, looks: Vec<Look>) -> Result<Vec<Vec<Row>>, StoreError> {
        let none = vec![Vec::new(); looks.len()];
        let keep = |found: &mut Vec<Vec<Row>>, look: usize, row: Row| {
            if let Some(rows) = found.get_mut(look) {
                rows.push(row);
            }
            Ok(())
        };
        self.look_at_each(looks, none, keep).await
    }

    /// The same, each row given to `take` with the place of its statement as it comes, and what it is gathered in.
    pub async fn look_at_each<T: Send + 'static>(
        &self,
        looks: Vec<Look>,
        gathered: T,
        take: fn(&mut T, usize, Row) -> Result<(), StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(store) => store.look_at_each(looks, gathered, take).await,
            Self::Postgres(store) => store.look_at_each(&looks, gathered, take).await,
        }
    }

    /// Ends the engine: waits for what it was given, and lets go of the data folder.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
