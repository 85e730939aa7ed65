//! PostgreSQL: any number of server processes on one database.
//!
//! One connection of this process writes the log; it stands apart from the read pool and has timeouts, so that a stuck
//! client cannot hold the head for ever. A batch is five round trips: BEGIN, lock the head, ask what must be known
//! (in a statement of its own: within one statement the snapshot would be older than the lock), write everything,
//! COMMIT.

mod batch;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{
    Connection as _, Executor as _, PgConnection, PgPool, Postgres, Row as _, TypeInfo as _, ValueRef as _,
};
use tokio::sync::Mutex;

use super::admission::{Questions, admit};
use super::connect::OpenError;
use super::{
    Append, AppendError, BUCKET, Cell, EPOCH, MAX_CLOCK_SKEW_MS, Outcome, Row, Statement, StoreError,
    StoredEvent, StreamId, migrate,
};
use crate::clock::Clock;
use batch::{know, write_plan};

/// How long a lock on the head is waited for before the caller is told to try again.
const LOCK_TIMEOUT: &str = "5s";

/// PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    options: PgConnectOptions,
    /// Pages and the directory.
    pool: PgPool,
    /// The connection that writes the log; None until it is needed, and again after it failed.
    writer: Mutex<Option<PgConnection>>,
    version: String,
}

impl PostgresStore {
    /// Connects, makes sure that the server keeps what it acknowledges, and brings the ledger up to date.
    pub async fn open(url: &str, now_ms: i64) -> Result<Self, OpenError> {
        let store = Self::connect(url).await?;
        let mut connection = PgConnection::connect_with(&store.inner.options).await?;
        for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
            let value: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut connection)
                .await?;
            if value == "off" {
                return Err(OpenError::UnsafeSetting { setting: setting.to_owned(), value });
            }
        }
        migrate::postgres(&mut connection, now_ms).await?;
        connection.close().await?;
        Ok(store)
    }

    /// Connects for reading only.
    pub async fn connect(url: &str) -> Result<Self, OpenError> {
        let options = connect_options(url)?;
        let unreachable = |source| OpenError::Unreachable {
            host: format!("{}:{}", options.get_host(), options.get_port()),
            source,
        };
        let mut connection = PgConnection::connect_with(&options).await.map_err(unreachable)?;
        let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await?;
        let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        if number < 150_000 {
            return Err(OpenError::TooOld { found: version });
        }
        // More connections than cores make PostgreSQL slower; a few more hide the round trips.
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u32;
        let pool = PgPoolOptions::new()
            .max_connections(cores + 2)
            .acquire_timeout(Duration::from_secs(5))
            // A ping before every read would double the round trips; a read on a dead connection is tried again.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        let inner = Inner { options, pool, writer: Mutex::new(None), version };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn version(&self) -> &str {
        &self.inner.version
    }

    pub(super) async fn close(&self) {
        if let Some(writer) = self.inner.writer.lock().await.take() {
            let _ = writer.close().await;
        }
        self.inner.pool.close().await;
    }

    pub(super) async fn ping(&self, now_ms: i64) -> Result<i64, StoreError> {
        let their_ms: i64 = sqlx::query_scalar(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM log_head WHERE bucket = $1",
        )
        .bind(BUCKET)
        .fetch_one(&self.inner.pool)
        .await?;
        Ok(now_ms - their_ms)
    }

    pub(super) async fn load(&self, streams: &[StreamId]) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
        // LATERAL with ORDER BY: one index walk per stream, whatever the planner believes about the table's size.
        const LOAD: &str = "
            SELECT q.place, e.position, e.sequence, e.event_type, e.event_version, e.payload::text, e.metadata::text,
                   e.recorded_at_ms
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q (kind, id, place)
            CROSS JOIN LATERAL (
              SELECT * FROM events
              WHERE aggregate_type = q.kind AND aggregate_id = q.id AND bucket = $3 ORDER BY sequence
            ) AS e
            ORDER BY q.place, e.sequence";
        let kinds: Vec<&str> = streams.iter().map(|stream| stream.kind).collect();
        let ids: Vec<String> = streams.iter().map(|stream| stream.id.to_string()).collect();
        let rows = twice(|| async {
            sqlx::query(LOAD).bind(&kinds).bind(&ids).bind(BUCKET).fetch_all(&self.inner.pool).await
        })
        .await?;
        let mut loaded = vec![Vec::new(); streams.len()];
        for row in rows {
            let place: i64 = row.try_get(0)?;
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let (Some(stream), Some(events)) = (streams.get(place), loaded.get_mut(place)) {
                events.push(StoredEvent {
                    position: row.try_get(1)?,
                    aggregate_type: stream.kind.to_owned(),
                    aggregate_id: stream.id.to_string(),
                    sequence: row.try_get(2)?,
                    event_type: row.try_get(3)?,
                    event_version: row.try_get(4)?,
                    payload: row.try_get(5)?,
                    metadata: row.try_get(6)?,
                    recorded_at_ms: row.try_get(7)?,
                });
            }
        }
        Ok(loaded)
    }

    pub(super) async fn events_after(
        &self,
        position: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rows = twice(|| async {
            sqlx::query(
                "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text,
                        metadata::text, recorded_at_ms
                 FROM events WHERE bucket = $1 AND position > $2 ORDER BY position LIMIT $3",
            )
            .bind(BUCKET)
            .bind(position)
            .bind(limit)
            .fetch_all(&self.inner.pool)
            .await
        })
        .await?;
        let event = |row: &PgRow| -> Result<StoredEvent, sqlx::Error> {
            Ok(StoredEvent {
                position: row.try_get(0)?,
                aggregate_type: row.try_get(1)?,
                aggregate_id: row.try_get(2)?,
                sequence: row.try_get(3)?,
                event_type: row.try_get(4)?,
                event_version: row.try_get(5)?,
                payload: row.try_get(6)?,
                metadata: row.try_get(7)?,
                recorded_at_ms: row.try_get(8)?,
            })
        };
        Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
    }

    pub(super) async fn query(&self, statement: &Statement) -> Result<Vec<Row>, StoreError> {
        let rows = twice(|| async { bound(statement).fetch_all(&self.inner.pool).await }).await?;
        rows.iter().map(read_row).collect()
    }

    pub(super) async fn write(&self, statements: &[Statement]) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut transaction = self.inner.pool.begin().await?;
        let mut answers = Vec::new();
        for statement in statements {
            let rows = bound(statement).fetch_all(&mut *transaction).await?;
            let failed = statement.must_return && rows.is_empty();
            answers.push(rows.iter().map(read_row).collect::<Result<_, _>>()?);
            if failed {
                transaction.rollback().await?;
                return Ok(answers);
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }

    pub(super) async fn append(&self, batch: &[Append], clock: &Clock) -> Result<Vec<Outcome>, AppendError> {
        let mut writer = self.inner.writer.lock().await;
        let fresh = writer.is_none();
        let mut connection = self.take_writer(&mut writer).await.map_err(undone)?;
        let mut outcome = append_on(&mut connection, batch, clock).await;
        // The connection may have died while it lay idle: nothing was written then, so a new one may try once.
        if !fresh && matches!(outcome, Err(AppendError::Unavailable(_))) {
            connection = self.take_writer(&mut writer).await.map_err(undone)?;
            outcome = append_on(&mut connection, batch, clock).await;
        }
        // Only a connection that is known to be outside a transaction is used again; dropping one ends its own.
        if !matches!(outcome, Err(AppendError::Unavailable(_) | AppendError::Unknown { .. })) {
            *writer = Some(connection);
        }
        outcome
    }

    async fn take_writer(&self, slot: &mut Option<PgConnection>) -> Result<PgConnection, StoreError> {
        if let Some(connection) = slot.take() {
            return Ok(connection);
        }
        let connecting = PgConnection::connect_with(&self.inner.options);
        let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
        Ok(connected.map_err(|_| sqlx::Error::PoolTimedOut)??)
    }

    pub(super) async fn resolve(
        &self,
        append_ids: &[String],
        after_position: i64,
    ) -> Result<HashMap<String, (i64, i64)>, StoreError> {
        let mut connection = self.take_writer(&mut None).await?;
        let mut transaction = connection.begin().await?;
        // The lock is granted only when the dead connection's transaction has ended one way or the other.
        lock_head(&mut transaction).await?;
        let rows = sqlx::query(
            "SELECT metadata->>'append_id', min(position), min(recorded_at_ms) FROM events
             WHERE bucket = $1 AND position > $2 AND metadata->>'append_id' = ANY($3) GROUP BY 1",
        )
        .bind(BUCKET)
        .bind(after_position)
        .bind(append_ids)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.rollback().await?;
        let found = |row: &PgRow| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)));
        Ok(rows.iter().map(found).collect::<Result<_, sqlx::Error>>()?)
    }
}

fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    // sqlx would silently ignore both: better to say so than to write to a standby.
    if url.contains("target_session_attrs") {
        return Err(OpenError::BadUrl("target_session_attrs is not supported; name the primary".to_owned()));
    }
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    if authority.rsplit('@').next().unwrap_or_default().contains(',') {
        return Err(OpenError::BadUrl("several hosts are not supported; name the primary".to_owned()));
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OpenError::BadUrl("it must begin with postgres://".to_owned()));
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| OpenError::BadUrl(error.to_string()))?;
    Ok(options.application_name("coupon-ledger").options([
        ("default_transaction_isolation", "read\\ committed"),
        ("lock_timeout", LOCK_TIMEOUT),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "15s"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        // Every statement here has its index. Plans are cached on an empty ledger, where a scan looks cheap.
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]))
}

/// Reads are harmless to repeat: once more when the pool's connection was dead.
async fn twice<T, F: Future<Output = Result<T, sqlx::Error>>>(
    read: impl Fn() -> F,
) -> Result<T, sqlx::Error> {
    match read().await {
        Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => read().await,
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("57P")) => {
            read().await
        }
        other => other,
    }
}

fn bound(statement: &Statement) -> Query<'_, Postgres, PgArguments> {
    statement.parameters.iter().fold(sqlx::query(statement.sql), |query, cell| match cell {
        Cell::Int(value) => query.bind(value),
        Cell::Text(value) => query.bind(value),
    })
}

fn read_row(row: &PgRow) -> Result<Row, StoreError> {
    let cell = |column: usize| -> Result<Cell, StoreError> {
        let value = row.try_get_raw(column)?;
        if value.is_null() {
            return Ok(Cell::Text(String::new()));
        }
        match value.type_info().name() {
            "INT8" => Ok(Cell::Int(row.try_get(column)?)),
            "TEXT" => Ok(Cell::Text(row.try_get(column)?)),
            other => Err(StoreError::Corrupt {
                table: "a page".to_owned(),
                column: column.to_string(),
                what: format!("{other} is neither BIGINT nor TEXT"),
            }),
        }
    };
    Ok(Row((0..row.len()).map(cell).collect::<Result<_, _>>()?))
}

/// An error before COMMIT: whatever was done is undone with the connection or the transaction.
fn undone(error: StoreError) -> AppendError {
    let statement = error.is_statement_error();
    let error = Arc::new(error);
    if statement { AppendError::Rejected(error) } else { AppendError::Unavailable(error) }
}

struct Head {
    position: i64,
    last_ms: i64,
    epoch: i64,
    database_ms: i64,
}

async fn lock_head(connection: &mut PgConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query(
        "SELECT position, last_ms, epoch, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
         FROM log_head WHERE bucket = $1 FOR UPDATE",
    )
    .bind(BUCKET)
    .fetch_one(connection)
    .await?;
    Ok(Head {
        position: row.try_get(0)?,
        last_ms: row.try_get(1)?,
        epoch: row.try_get(2)?,
        database_ms: row.try_get(3)?,
    })
}

async fn append_on(
    connection: &mut PgConnection,
    batch: &[Append],
    clock: &Clock,
) -> Result<Vec<Outcome>, AppendError> {
    let before_commit = |error: sqlx::Error| undone(error.into());
    connection.execute("BEGIN").await.map_err(before_commit)?;
    let worked = work(connection, batch, clock).await;
    match worked {
        Ok((outcomes, _, false)) => {
            connection.execute("ROLLBACK").await.map_err(before_commit)?;
            Ok(outcomes)
        }
        Ok((outcomes, head, true)) => match connection.execute("COMMIT").await {
            Ok(_) => Ok(outcomes),
            Err(error) => {
                let error = StoreError::from(error);
                // A constraint that speaks up in COMMIT is an answer; anything else leaves the outcome open.
                if error.is_statement_error() {
                    return Err(AppendError::Rejected(Arc::new(error)));
                }
                Err(AppendError::Unknown { head, source: Arc::new(error) })
            }
        },
        Err(error) => {
            // The transaction has failed or refused: it must be ended before this connection is used again.
            match connection.execute("ROLLBACK").await {
                Ok(_) => Err(error),
                Err(rollback) => Err(AppendError::Unavailable(Arc::new(rollback.into()))),
            }
        }
    }
}

/// Everything between BEGIN and COMMIT: the outcomes, the head before, and whether anything was written.
async fn work(
    connection: &mut PgConnection,
    batch: &[Append],
    clock: &Clock,
) -> Result<(Vec<Outcome>, i64, bool), AppendError> {
    let failed = |error: sqlx::Error| undone(error.into());
    let head = lock_head(connection).await.map_err(failed)?;
    if head.epoch != EPOCH || batch.iter().any(|append| append.epoch != head.epoch) {
        return Err(AppendError::OldEpoch { found: head.epoch });
    }
    // Read only now: waiting for the lock is not an error of the clock.
    let now_ms = clock.now_ms();
    let skew_ms = now_ms - head.database_ms;
    if clock.is_system() && skew_ms.abs() > MAX_CLOCK_SKEW_MS {
        return Err(AppendError::ClockSkew(skew_ms));
    }
    let known = know(connection, &Questions::of(batch)).await.map_err(undone)?;
    let (plan, outcomes) = admit(batch, known, head.position, now_ms.max(head.last_ms));
    let writes = !plan.is_empty();
    if writes {
        write_plan(connection, &plan).await.map_err(failed)?;
    }
    Ok((outcomes, head.position, writes))
}
