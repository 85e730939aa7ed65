//! PostgreSQL: any number of server processes on one database.
//!
//! The connections that write the log stand apart from the read pool and have timeouts, so that a stuck client cannot
//! hold the head for ever. A batch is four round trips: begin and lock the head, ask what must be known (in a statement
//! of its own: within one statement the snapshot would be older than the lock), write everything, COMMIT.

mod batch;
mod reads;
mod replay;

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Row as _};

use super::admission::{Questions, admit};
use super::connect::OpenError;
use super::{
    Append, AppendError, Appended, BUCKET, Cell, EPOCH, MAX_CLOCK_SKEW_MS, Phases, Resolved, Row, Statement,
    StoreError, StoredEvent, migrate,
};
use crate::clock::Clock;
use batch::{know, write_plan};
use reads::{Reads, bound, read_row};
pub use replay::Rebuilding;

/// How long a lock on the head is waited for before the caller is told to try again.
const LOCK_TIMEOUT: &str = "5s";

/// PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    options: PgConnectOptions,
    /// The directory, and reads.
    pool: PgPool,
    reads: Arc<Reads>,
    /// Connections that write the log and are idle now.
    writers: Mutex<Vec<PgConnection>>,
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
        let reads = Reads::start(pool.clone(), cores);
        let inner = Inner { options, pool, reads, writers: Mutex::default(), version };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn version(&self) -> &str {
        &self.inner.version
    }

    pub(super) async fn close(&self) {
        let writers = std::mem::take(&mut *self.idle_writers());
        for writer in writers {
            let _ = writer.close().await;
        }
        self.inner.pool.close().await;
    }

    pub(super) async fn ping(&self, now_ms: i64) -> Result<i64, StoreError> {
        const NOW: &str =
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM log_head WHERE bucket = $1";
        let their_ms: i64 = on_live_connection(&self.inner.pool, || async {
            sqlx::query_scalar(NOW).bind(BUCKET).fetch_one(&self.inner.pool).await
        })
        .await?;
        Ok(now_ms - their_ms)
    }

    pub(super) async fn events_after(
        &self,
        position: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let rows = on_live_connection(&self.inner.pool, || async {
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

    pub(super) async fn query(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        self.inner.reads.query(statement).await
    }

    pub(super) async fn query_each(
        &self,
        sql: &'static str,
        sets: Vec<Vec<Cell>>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        self.inner.reads.query_each(sql, sets).await
    }

    pub(super) async fn write(&self, statements: &[Statement]) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut transaction = on_live_connection(&self.inner.pool, || self.inner.pool.begin()).await?;
        let mut answers = Vec::new();
        for statement in statements {
            let rows = bound(statement.sql, &statement.parameters).fetch_all(&mut *transaction).await?;
            let failed = statement.must_return && rows.is_empty();
            answers.push(rows.iter().map(|row| read_row(row, 0)).collect::<Result<_, _>>()?);
            if failed {
                transaction.rollback().await?;
                return Ok(answers);
            }
        }
        transaction.commit().await?;
        Ok(answers)
    }

    fn idle_writers(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction and locks the head.
    pub(super) async fn begin(&self) -> Result<Begun, AppendError> {
        let mut since = Instant::now();
        let idle = self.idle_writers().pop();
        let tried = match idle {
            Some(connection) => Some(lock_head(connection).await),
            None => None,
        };
        let locked = match tried {
            Some(locked) if !locked.as_ref().is_err_and(is_dead_connection) => locked,
            // It died while it lay idle, and nothing was written on it: a new one may try.
            _ => lock_head(self.connect_writer().await.map_err(undone)?).await,
        };
        let (connection, head) = locked.map_err(|error| undone(error.into()))?;
        Ok(Begun { connection, head, store: self.clone(), lock: Phases::lap(&mut since) })
    }

    async fn connect_writer(&self) -> Result<PgConnection, StoreError> {
        let connecting = PgConnection::connect_with(&self.inner.options);
        let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
        let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
        connection.execute(PREPARE_LOCK).await?;
        Ok(connection)
    }

    pub(super) async fn resolve(
        &self,
        append_ids: &[String],
        after_position: i64,
    ) -> Result<Vec<Resolved>, StoreError> {
        let connection = self.connect_writer().await?;
        // The lock is granted only when the dead connection's transaction has ended one way or the other.
        let (mut connection, _) = lock_head(connection).await?;
        let rows = sqlx::query(
            "SELECT metadata->>'append_id', aggregate_type, aggregate_id, min(position), min(recorded_at_ms) FROM events
             WHERE bucket = $1 AND position > $2 AND metadata->>'append_id' = ANY($3) GROUP BY 1, 2, 3",
        )
        .bind(BUCKET)
        .bind(after_position)
        .bind(append_ids)
        .fetch_all(&mut connection)
        .await?;
        connection.execute("ROLLBACK").await?;
        let found = |row: &PgRow| {
            Ok(Resolved {
                append_id: row.try_get(0)?,
                kind: row.try_get(1)?,
                aggregate_id: row.try_get(2)?,
                position: row.try_get(3)?,
                recorded_at_ms: row.try_get(4)?,
            })
        };
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
        // Arrays shorter than the planner's guess would be planned anew each time.
        ("plan_cache_mode", "force_generic_plan"),
    ]))
}

/// Whether the connection, not the statement, is what failed: it broke, or the server was told to end it.
fn is_dead_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

/// Repeats what is harmless to repeat, a read or a BEGIN, when the pool's connection was dead. After the database was
/// away all of them are, and each try finds one out: so many tries, and one more on a connection that is new.
async fn on_live_connection<T, F: Future<Output = Result<T, sqlx::Error>>>(
    pool: &PgPool,
    read: impl Fn() -> F,
) -> Result<T, sqlx::Error> {
    for _ in 0..pool.options().get_max_connections() {
        match read().await {
            Err(error) if is_dead_connection(&error) => {}
            other => return other,
        }
    }
    read().await
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

/// Planned once per connection.
const PREPARE_LOCK: &str = "PREPARE lock_head AS
    SELECT position, last_ms, epoch, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM log_head WHERE bucket = 0 FOR UPDATE";

/// Begins a transaction and takes the lock in one round trip. What is read under the lock must be asked in a later
/// statement. A connection whose lock failed is dropped, which ends its transaction.
async fn lock_head(mut connection: PgConnection) -> Result<(PgConnection, Head), sqlx::Error> {
    let row = connection.fetch_one("BEGIN; EXECUTE lock_head").await?;
    let head = Head {
        position: row.try_get(0)?,
        last_ms: row.try_get(1)?,
        epoch: row.try_get(2)?,
        database_ms: row.try_get(3)?,
    };
    Ok((connection, head))
}

/// A transaction that holds the head. Dropped unfinished, it is rolled back with its connection.
pub struct Begun {
    connection: PgConnection,
    head: Head,
    store: PostgresStore,
    lock: Duration,
}

impl Begun {
    pub(super) async fn append(mut self, batch: &[Append], clock: &Clock) -> Result<Appended, AppendError> {
        let outcome = self.work_and_end(batch, clock).await;
        // Only a connection that is known to be outside a transaction is used again; dropping one ends its own.
        if !matches!(outcome, Err(AppendError::Unavailable(_) | AppendError::Unknown { .. })) {
            self.store.idle_writers().push(self.connection);
        }
        outcome
    }

    async fn work_and_end(&mut self, batch: &[Append], clock: &Clock) -> Result<Appended, AppendError> {
        let before_commit = |error: sqlx::Error| undone(error.into());
        match self.work(batch, clock).await {
            Ok((appended, false)) => {
                self.connection.execute("ROLLBACK").await.map_err(before_commit)?;
                Ok(appended)
            }
            Ok((mut appended, true)) => {
                let mut since = Instant::now();
                match self.connection.execute("COMMIT").await {
                    Ok(_) => {
                        appended.phases.commit = Phases::lap(&mut since);
                        Ok(appended)
                    }
                    Err(error) => {
                        let error = StoreError::from(error);
                        // A constraint that speaks up in COMMIT is an answer; anything else leaves the outcome open.
                        if error.is_statement_error() {
                            return Err(AppendError::Rejected(Arc::new(error)));
                        }
                        Err(AppendError::Unknown { head: self.head.position, source: Arc::new(error) })
                    }
                }
            }
            Err(error) => {
                // The transaction has failed or refused: it must be ended before this connection is used again.
                match self.connection.execute("ROLLBACK").await {
                    Ok(_) => Err(error),
                    Err(rollback) => Err(AppendError::Unavailable(Arc::new(rollback.into()))),
                }
            }
        }
    }

    /// Everything between the lock and COMMIT: the outcomes, and whether anything was written.
    async fn work(&mut self, batch: &[Append], clock: &Clock) -> Result<(Appended, bool), AppendError> {
        let Self { connection, head, .. } = self;
        let mut phases = Phases { lock: self.lock, ..Phases::default() };
        let mut since = Instant::now();
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
        phases.check = Phases::lap(&mut since);
        let writes = !plan.is_empty();
        if writes {
            write_plan(connection, &plan).await.map_err(|error| undone(error.into()))?;
            phases.write = Phases::lap(&mut since);
        }
        Ok((Appended { outcomes, phases }, writes))
    }
}
