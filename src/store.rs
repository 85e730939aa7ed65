//! The event log on its two engines: load, append, read by position.
//!
//! Hides which database it is. Promises that a committed append is on disk, that positions are gapless and in commit
//! order, and that payload bytes come back as they went in. It must never decide anything about coupons: what may be
//! admitted is asked of [`admission`], which both engines share, and each engine's file holds only its statements.

pub mod admission;
mod connect;
mod migrate;
mod postgres;
mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use connect::{OpenError, StoreOptions, open, open_read_only};
pub use migrate::SCHEMA_VERSION;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use crate::clock::Clock;
use crate::refusal::Refusal;

/// The one bucket of today. Every key carries it and every statement binds it, so that a ledger can have many.
pub const BUCKET: i64 = 0;

/// The epoch of the live read models that this program writes. A switch to new tables moves it.
pub const EPOCH: i64 = 1;

/// How far a process may be off the database's clock before it refuses writes.
pub const MAX_CLOCK_SKEW_MS: i64 = 2_000;

/// Names one stream: the aggregate's type and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// `coupon`, `definition` or `shop`.
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

/// A change of a definition's stock row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockChange {
    /// So many more issued (or, negative, fewer); refused with 5001 above the stock.
    Issued {
        /// Whose stock.
        definition_id: i64,
        /// By how many.
        by: i64,
    },
    /// A new stock; refused below what is issued.
    Set {
        /// Whose stock.
        definition_id: i64,
        /// None = unlimited.
        stock: Option<i64>,
    },
}

/// A change of how many coupons of a definition a member has been issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberCountChange {
    /// The member.
    pub member_id: i64,
    /// The definition.
    pub definition_id: i64,
    /// By how many.
    pub by: i64,
    /// Refused with 5002 above this.
    pub limit: Option<i64>,
}

/// "One at a time until its end date": refused with 5002 while an issued coupon of the definition has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneAtATime {
    /// The member.
    pub member_id: i64,
    /// The definition.
    pub definition_id: i64,
    /// The time of the command, Unix milliseconds.
    pub now_ms: i64,
    /// When the new coupon ends, for those behind it in the same batch.
    pub ends_at_ms: i64,
}

/// The guard on failed gift codes: refused with 9001 after ten within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptGuard {
    /// The member who tries.
    pub member_id: i64,
    /// The time of the command, Unix milliseconds.
    pub now_ms: i64,
    /// Whether this try failed and is to be counted.
    pub failed: bool,
}

/// Failed gift codes that one caller has within [`ATTEMPT_WINDOW_MS`].
pub const MAX_ATTEMPTS: i64 = 10;

/// How long a failed gift code counts.
pub const ATTEMPT_WINDOW_MS: i64 = 3_600_000;

/// A review's text and salt, kept apart from the log so that they can be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewText {
    /// The coupon that was reviewed.
    pub coupon_id: i64,
    /// What the hash in the event was made with.
    pub salt: String,
    /// What the member wrote.
    pub text: String,
}

/// A live read model's table, as `projections/*.sql` makes it.
#[derive(Debug)]
pub struct LiveTable {
    /// Its name with its version.
    pub name: &'static str,
    /// Its columns after `bucket`, the key's first.
    pub columns: &'static [Column],
    /// How many of them, with `bucket` before, are the primary key.
    pub key_columns: usize,
}

/// One column of a live table.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// A BIGINT.
    Int(&'static str),
    /// A TEXT.
    Text(&'static str),
}

impl Column {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int(name) | Self::Text(name) => name,
        }
    }
}

/// A value in a row: read models and the directory know no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// A BIGINT.
    Int(i64),
    /// A TEXT.
    Text(String),
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// A row that is upserted whole into a live table.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// Where it belongs.
    pub table: &'static LiveTable,
    /// One cell per column of the table.
    pub cells: Vec<Cell>,
}

/// What a change of a stream writes beside its events, in the same transaction.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Rows of live read models.
    pub rows: Vec<LiveRow>,
    /// Stock that moves.
    pub stock: Vec<StockChange>,
    /// Member counts that move.
    pub member_counts: Vec<MemberCountChange>,
    /// The guard of "one at a time".
    pub one_at_a_time: Option<OneAtATime>,
    /// The guard on failed gift codes.
    pub attempts: Option<AttemptGuard>,
    /// A review's text.
    pub review: Option<ReviewText>,
}

/// What one command asks the log to take, all or nothing: its events and what they write beside.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The streams it appends to. Empty only for one that counts a failed attempt.
    pub streams: Vec<StreamAppend>,
    /// Everything else.
    pub effects: Effects,
}

/// One or several entries under one id and at most one receipt. Each entry is admitted or refused by itself; those that
/// are admitted are committed together, at neighbouring positions.
#[derive(Clone, Debug)]
pub struct Append {
    /// 128 random bits in hexadecimal, also in the events' metadata: by it an unknown outcome is resolved.
    pub append_id: String,
    /// The epoch of the live tables it writes for.
    pub epoch: i64,
    /// What is to be taken, in this order.
    pub entries: Vec<Entry>,
    /// Streams the decisions read but do not append to, with the versions they saw.
    pub unchanged: Vec<(StreamId, i64)>,
    /// The receipt to leave where an entry is admitted, with the fingerprint of the request.
    pub receipt: Option<(ReceiptKey, String)>,
    /// The events' metadata: a flat map of strings as JSON.
    pub metadata: Arc<str>,
}

/// What became of one entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk.
    Committed {
        /// The first event's position; the next one's where it had no events.
        position: i64,
        /// Unix milliseconds.
        recorded_at_ms: i64,
    },
    /// A stream has moved: load again and decide again.
    Conflict,
    /// The idempotency key has a receipt already.
    ReceiptExists,
    /// A guard said no.
    Refused(Refusal),
}

/// Events that were found in the log after a commit was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The append they came from.
    pub append_id: String,
    /// Their stream's type.
    pub kind: String,
    /// Their stream's id.
    pub aggregate_id: String,
    /// The first one's position.
    pub position: i64,
    /// When they were recorded.
    pub recorded_at_ms: i64,
}

/// What a committed batch came to.
#[derive(Clone, Debug)]
pub struct Appended {
    /// One for each entry, in the batch's order.
    pub outcomes: Vec<Outcome>,
    /// How long it took.
    pub phases: Phases,
}

/// Where a batch's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Until the head was locked.
    pub lock: Duration,
    /// Reading what the rules need, and applying them.
    pub check: Duration,
    /// Events, rows, counters and receipts.
    pub write: Duration,
    /// Until it was on disk.
    pub commit: Duration,
}

impl Phases {
    /// The time since `since`, which starts anew.
    fn lap(since: &mut Instant) -> Duration {
        let lap = since.elapsed();
        *since = Instant::now();
        lap
    }
}

/// What a batch that could not be committed means for its appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The database refused a statement, and nothing was written.
    #[error("the database refused the batch: {0}")]
    Rejected(Arc<StoreError>),
    /// The database could not be reached or locked in time, and nothing was written.
    #[error("the database is not available: {0}")]
    Unavailable(Arc<StoreError>),
    /// The connection died in commit. Neither success nor failure: ask the log.
    #[error("the outcome of a commit is unknown: {source}")]
    Unknown {
        /// The head's position before the batch.
        head: i64,
        /// What happened to the connection.
        source: Arc<StoreError>,
    },
    /// This process's clock is too far off the database's.
    #[error("this server's clock is {0} ms off the database's")]
    ClockSkew(i64),
    /// The live tables have moved on to a newer epoch: this process must stop writing.
    #[error("the ledger is at epoch {found}, this program writes epoch {EPOCH}")]
    OldEpoch {
        /// What the head says.
        found: i64,
    },
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
    /// A PostgreSQL error that lies in the statement or its data, not in the connection or its load.
    fn is_statement_error(&self) -> bool {
        match self {
            Self::Postgres(sqlx::Error::Database(error)) => {
                // 08 connection, 40 rollback, 53 resources, 55 lock timeouts, 57 shutdown and cancel, 58 system.
                let code = error.code().unwrap_or_default();
                !["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
            }
            Self::Postgres(
                sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_),
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

/// One index walk.
const LOAD: &str = "SELECT position, sequence, event_type, event_version, CAST(payload AS TEXT), CAST(metadata AS TEXT),
                           recorded_at_ms
                    FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND bucket = $3 ORDER BY sequence";

fn load_parameters(stream: StreamId) -> [Cell; 3] {
    [stream.kind.into(), stream.id.to_string().into(), BUCKET.into()]
}

fn stored_event(stream: StreamId, mut row: Row) -> StoredEvent {
    StoredEvent {
        position: row.int(0),
        aggregate_type: stream.kind.to_owned(),
        aggregate_id: stream.id.to_string(),
        sequence: row.int(1),
        event_type: row.take_text(2),
        event_version: row.take_text(3),
        payload: row.take_text(4),
        metadata: row.take_text(5),
        recorded_at_ms: row.int(6),
    }
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
        let rows = self.query(Statement::new(LOAD, load_parameters(stream))).await?;
        Ok(rows.into_iter().map(|row| stored_event(stream, row)).collect())
    }

    /// The events of each of these streams.
    pub async fn load(&self, streams: &[StreamId]) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        let sets = streams.iter().map(|stream| load_parameters(*stream).into()).collect();
        let found = self.query_each(LOAD, sets).await?;
        let of_stream = |(stream, rows): (&StreamId, Vec<Row>)| {
            rows.into_iter().map(|row| stored_event(*stream, row)).collect()
        };
        Ok(streams.iter().zip(found).map(of_stream).collect())
    }

    /// Up to `limit` events behind a position, in order.
    pub async fn events_after(&self, position: i64, limit: i64) -> Result<Vec<StoredEvent>, StoreError> {
        match self {
            Self::Sqlite(store) => store.events_after(position, limit).await,
            Self::Postgres(store) => store.events_after(position, limit).await,
        }
    }

    /// Commits a batch in one transaction; each entry has its own outcome, in the batch's order.
    /// The clock gives the recorded time; PostgreSQL's own is held against it, unless a test holds the hand.
    pub async fn append(&self, batch: Arc<[Append]>, clock: &Clock) -> Result<Appended, AppendError> {
        match self {
            Self::Sqlite(store) => store.append(batch, clock.clone()).await,
            Self::Postgres(store) => store.append(&batch, clock).await,
        }
    }

    /// What the log says of appends whose commit was not answered: under the head lock, which waits for the dead
    /// connection's transaction to end one way or the other, where and when each stream's events of theirs begin.
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

    /// Ends the engine: waits for what it was given, and lets go of the data folder.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
