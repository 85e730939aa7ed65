//! PostgreSQL: any number of server processes on one database.
//!
//! The connection that writes the log stands apart from the read pool and has timeouts, so that a stuck client cannot
//! hold the head for ever. How a batch gets into the log is told in `append`.

mod append;
mod batch;
mod reads;
mod rebuild;
mod replay;
mod role;
mod takeover;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Row as _};

use super::connect::OpenError;
use super::{AppendError, BUCKET, Cell, Look, Resolved, Row, Statement, StoreError, StoredEvent, migrate};
pub use append::Appender;
use append::{PREPARE_LOCK, lock_head};
use reads::{Reads, bound, read_row};
pub use rebuild::Rebuilder;
pub use role::{Link, database_link, excessive_rights};

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
        let inner = Inner { options, pool, reads, version };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether there is a ledger in this database.
    pub(super) async fn has_ledger(&self) -> Result<bool, StoreError> {
        let sql = "SELECT to_regclass('ledger_facts') IS NOT NULL";
        let asked = on_live_connection(&self.inner.pool, || async {
            sqlx::query_scalar(sql).fetch_one(&self.inner.pool).await
        });
        Ok(asked.await?)
    }

    pub(super) fn version(&self) -> &str {
        &self.inner.version
    }

    pub(super) async fn close(&self) {
        self.inner.pool.close().await;
    }

    pub(super) fn appender(&self) -> Appender {
        Appender::new(self.clone())
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

    pub(super) async fn query_whole(&self, statement: &Statement) -> Result<Vec<Row>, StoreError> {
        let mut transaction = on_live_connection(&self.inner.pool, || self.inner.pool.begin()).await?;
        transaction
            .execute(
                "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on",
            )
            .await?;
        let rows = bound(statement.sql, &statement.parameters).fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        rows.iter().map(|row| read_row(row, 0)).collect()
    }

    pub(super) async fn look_at_each<T>(
        &self,
        looks: &[Look],
        mut gathered: T,
        take: fn(&mut T, usize, Row) -> Result<(), StoreError>,
    ) -> Result<T, StoreError> {
        let mut transaction = on_live_connection(&self.inner.pool, || self.inner.pool.begin()).await?;
        // Planned for what is asked; walks stay walks: of several ranges PostgreSQL takes each for a ninth of the table, and
        // would rather read all of it.
        transaction
            .execute(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL plan_cache_mode = auto",
            )
            .await?;
        for (place, Look { sql, parameters }) in looks.iter().enumerate() {
            // Their texts are many: none of them is kept prepared.
            let mut rows = bound(sql, parameters).persistent(false).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await? {
                take(&mut gathered, place, read_row(&row, 0)?)?;
            }
        }
        transaction.rollback().await?;
        Ok(gathered)
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
        let mut connection = self.connect_writer().await?;
        // This waits until the dead connection's transaction has ended one way or the other, and an append that has not
        // even arrived finds its turn passed.
        sqlx::query("UPDATE log_head SET turn = turn + 1 WHERE bucket = $1")
            .bind(BUCKET)
            .execute(&mut connection)
            .await?;
        let rows = sqlx::query(
            "SELECT metadata->>'append_id', aggregate_type, aggregate_id, min(position), min(recorded_at_ms) FROM events
             WHERE bucket = $1 AND position > $2 AND metadata->>'append_id' = ANY($3) GROUP BY 1, 2, 3",
        )
        .bind(BUCKET)
        .bind(after_position)
        .bind(append_ids)
        .fetch_all(&mut connection)
        .await?;
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
        // What a plan would cost without its LIMIT, which is a parameter, makes PostgreSQL compile it: 100 ms for ten rows.
        ("jit", "off"),
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
