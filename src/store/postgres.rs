//! PostgreSQL: any number of server processes on one database.
//!
//! One connection of this process writes the log; it stands apart from the read pool and has timeouts, so that a stuck
//! client cannot hold the head for ever. A batch is five round trips: BEGIN, lock the head, ask what must be known
//! (in a statement of its own: within one statement the snapshot would be older than the lock), write everything,
//! COMMIT.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, Row as _, TypeInfo as _, ValueRef as _};
use tokio::sync::Mutex;

use super::admission::{Known, Plan, Questions, admit};
use super::connect::OpenError;
use super::{
    Append, AppendError, BUCKET, Cell, Column, EPOCH, LiveRow, LiveTable, MAX_CLOCK_SKEW_MS, Outcome, Row, Statement,
    StoreError, StoredEvent, StreamId, migrate,
};
use crate::clock::Clock;

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
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await?;
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
        const NOW: &str =
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM log_head WHERE bucket = $1";
        let their_ms: i64 = on_live_connection(&self.inner.pool, || async {
            sqlx::query_scalar(NOW).bind(BUCKET).fetch_one(&self.inner.pool).await
        })
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
        let rows = on_live_connection(&self.inner.pool, || async {
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

    pub(super) async fn events_after(&self, position: i64, limit: i64) -> Result<Vec<StoredEvent>, StoreError> {
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

    pub(super) async fn query(&self, statement: &Statement) -> Result<Vec<Row>, StoreError> {
        let rows = on_live_connection(&self.inner.pool, || async { bound(statement).fetch_all(&self.inner.pool).await }).await?;
        rows.iter().map(read_row).collect()
    }

    pub(super) async fn write(&self, statements: &[Statement]) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut transaction = on_live_connection(&self.inner.pool, || self.inner.pool.begin()).await?;
        let mut answers = Vec::new();
        for statement in statements {
            let rows = bound(statement).fetch_all(&mut *transaction).await?;
            answers.push(rows.iter().map(read_row).collect::<Result<_, _>>()?);
        }
        transaction.commit().await?;
        Ok(answers)
    }

    pub(super) async fn append(
        &self,
        batch: &[Append],
        clock: &Clock,
    ) -> Result<Vec<Outcome>, AppendError> {
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
        match slot.take() {
            Some(connection) => Ok(connection),
            None => {
                let connecting = PgConnection::connect_with(&self.inner.options);
                let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
                Ok(connected.map_err(|_| sqlx::Error::PoolTimedOut)??)
            }
        }
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

/// Repeats what is harmless to repeat, a read or a BEGIN, when the pool's connection was dead. After the database was
/// away all of them are, and each try finds one out: so many tries, and one more on a connection that is new.
async fn on_live_connection<T, F: Future<Output = Result<T, sqlx::Error>>>(
    pool: &PgPool,
    read: impl Fn() -> F,
) -> Result<T, sqlx::Error> {
    for _ in 0..pool.options().get_max_connections() {
        match read().await {
            Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => {}
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("57P")) => {}
            other => return other,
        }
    }
    read().await
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

/// One statement answers every question of the batch: `what` says which, `place` which of its keys.
async fn know(connection: &mut PgConnection, questions: &Questions) -> Result<Known, StoreError> {
    const KNOW: &str = "
        SELECT 1::bigint AS what, q.place, COALESCE((
                 SELECT e.sequence FROM events e
                 WHERE e.aggregate_type = q.kind AND e.aggregate_id = q.id AND e.bucket = $1
                 ORDER BY e.sequence DESC LIMIT 1), 0) AS a, 0::bigint AS b
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS q (kind, id, place)
        UNION ALL
        SELECT 2, q.place, 0, 0
        FROM unnest($4::text[], $5::text[], $6::text[]) WITH ORDINALITY AS q (caller, operation, key, place)
        WHERE EXISTS (SELECT 1 FROM receipts r WHERE r.bucket = $1 AND r.caller = q.caller
                      AND r.operation = q.operation AND r.key = q.key)
        UNION ALL
        SELECT 3, q.place, s.stock, s.issued
        FROM unnest($7::bigint[]) WITH ORDINALITY AS q (definition_id, place)
        JOIN stock_v1 s ON s.bucket = $1 AND s.definition_id = q.definition_id
        UNION ALL
        SELECT 4, q.place, c.issued, 0
        FROM unnest($8::bigint[], $9::bigint[]) WITH ORDINALITY AS q (member_id, definition_id, place)
        JOIN member_counts_v1 c ON c.bucket = $1 AND c.member_id = q.member_id AND c.definition_id = q.definition_id
        UNION ALL
        SELECT 5, q.place, COALESCE((
                 SELECT max(w.ends_at_ms) FROM wallet_v1 w
                 WHERE w.bucket = $1 AND w.member_id = q.member_id AND w.definition_id = q.definition_id
                   AND w.issued_to = q.member_id AND w.voided = 0), 0), 0
        FROM unnest($10::bigint[], $11::bigint[]) WITH ORDINALITY AS q (member_id, definition_id, place)
        UNION ALL
        SELECT 6, q.place, g.at_ms, 0
        FROM unnest($12::bigint[], $13::bigint[]) WITH ORDINALITY AS q (member_id, since, place)
        JOIN gift_attempts g ON g.bucket = $1 AND g.member_id = q.member_id AND g.at_ms > q.since";
    let streams: Vec<StreamId> = questions.streams.iter().copied().collect();
    let stock: Vec<i64> = questions.stock.iter().copied().collect();
    let counts: Vec<(i64, i64)> = questions.member_counts.iter().copied().collect();
    let ends: Vec<(i64, i64)> = questions.latest_ends.iter().copied().collect();
    let attempts: Vec<(i64, i64)> = questions.attempts.iter().map(|(member, since)| (*member, *since)).collect();
    let column = |pairs: &[(i64, i64)], second: bool| -> Vec<i64> {
        pairs.iter().map(|pair| if second { pair.1 } else { pair.0 }).collect()
    };
    let rows = sqlx::query(KNOW)
        .bind(BUCKET)
        .bind(streams.iter().map(|stream| stream.kind).collect::<Vec<_>>())
        .bind(streams.iter().map(|stream| stream.id.to_string()).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.caller.as_str()).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.operation).collect::<Vec<_>>())
        .bind(questions.receipts.iter().map(|key| key.key.as_str()).collect::<Vec<_>>())
        .bind(&stock)
        .bind(column(&counts, false))
        .bind(column(&counts, true))
        .bind(column(&ends, false))
        .bind(column(&ends, true))
        .bind(column(&attempts, false))
        .bind(column(&attempts, true))
        .fetch_all(connection)
        .await?;
    let mut known = Known::default();
    for row in rows {
        let (what, place): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (a, b): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        match what {
            1 => known.versions.extend(streams.get(place).map(|stream| (*stream, a))),
            2 => known.receipts.extend(questions.receipts.get(place).cloned()),
            3 => known.stock.extend(stock.get(place).map(|id| (*id, (a, b)))),
            4 => known.member_counts.extend(counts.get(place).map(|key| (*key, a))),
            5 => known.latest_ends.extend(ends.get(place).map(|key| (*key, a))),
            _ => {
                if let Some((member_id, _)) = attempts.get(place) {
                    known.attempts.entry(*member_id).or_default().push(a);
                }
            }
        }
    }
    Ok(known)
}

/// One statement for the whole plan, whatever tables it touches.
///
/// Its parts are data-modifying CTEs: each runs once and to completion, and none reads what another writes. The head
/// row is locked already, so their order takes no lock out of turn.
#[derive(Default)]
struct WideWrite {
    sql: String,
    columns: Vec<Values>,
}

enum Values {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl WideWrite {
    /// Adds `INSERT INTO table (bucket, columns) SELECT … FROM unnest(arrays)` and whatever follows it.
    fn insert(&mut self, table: &str, columns: Vec<(&str, &str, Values)>, then: &str) {
        let name = self.columns.len();
        let names: Vec<&str> = columns.iter().map(|(name, _, _)| *name).collect();
        let mut arrays = Vec::new();
        let mut picks = Vec::new();
        for (place, (_, cast, values)) in columns.into_iter().enumerate() {
            self.columns.push(values);
            let number = self.columns.len();
            let array = if cast == "bigint" { "bigint[]" } else { "text[]" };
            arrays.push(format!("${number}::{array}"));
            picks.push(if cast == "json" { format!("c{place}::json") } else { format!("c{place}") });
        }
        let aliases: Vec<String> = (0..picks.len()).map(|place| format!("c{place}")).collect();
        let _ = write!(
            self.sql,
            "w{name} AS (INSERT INTO {table} (bucket, {}) SELECT {BUCKET}, {} FROM unnest({}) AS q ({}) {then}), ",
            names.join(", "),
            picks.join(", "),
            arrays.join(", "),
            aliases.join(", "),
        );
    }

    /// Moves the head and runs it all.
    async fn run(mut self, connection: &mut PgConnection, head: i64, recorded_at_ms: i64) -> Result<(), sqlx::Error> {
        let places = self.columns.len();
        let sql = format!(
            "WITH {} head AS (SELECT 1) UPDATE log_head SET position = ${}, last_ms = ${} WHERE bucket = {BUCKET}",
            self.sql,
            places + 1,
            places + 2
        );
        let columns = std::mem::take(&mut self.columns);
        let query = columns.into_iter().fold(sqlx::query(&sql), |query, values| match values {
            Values::Ints(values) => query.bind(values),
            Values::Texts(values) => query.bind(values),
        });
        query.bind(head).bind(recorded_at_ms).execute(connection).await.map(|_| ())
    }
}

async fn write_plan(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), sqlx::Error> {
    let mut write = WideWrite::default();
    if !plan.receipts.is_empty() {
        let texts = |of: for<'a> fn(&'a super::admission::PlannedReceipt<'a>) -> &'a str| {
            Values::Texts(plan.receipts.iter().map(|receipt| of(receipt).to_owned()).collect())
        };
        write.insert(
            "receipts",
            vec![
                ("caller", "text", texts(|receipt| &receipt.key.caller)),
                ("operation", "text", texts(|receipt| receipt.key.operation)),
                ("key", "text", texts(|receipt| &receipt.key.key)),
                ("request_mac", "text", texts(|receipt| receipt.request_mac)),
                ("position", "bigint", ints(&plan.receipts, |receipt| receipt.position)),
                ("event_count", "bigint", ints(&plan.receipts, |receipt| receipt.event_count)),
            ],
            "",
        );
    }
    if !plan.events.is_empty() {
        insert_events(&mut write, plan);
    }
    if !plan.stock.is_empty() {
        write.insert(
            "stock_v1",
            vec![
                ("definition_id", "bigint", ints(&plan.stock, |row| row.0)),
                ("stock", "bigint", ints(&plan.stock, |row| row.1)),
                ("issued", "bigint", ints(&plan.stock, |row| row.2)),
            ],
            "ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock, issued = excluded.issued",
        );
    }
    if !plan.member_counts.is_empty() {
        write.insert(
            "member_counts_v1",
            vec![
                ("member_id", "bigint", ints(&plan.member_counts, |row| row.0)),
                ("definition_id", "bigint", ints(&plan.member_counts, |row| row.1)),
                ("issued", "bigint", ints(&plan.member_counts, |row| row.2)),
            ],
            "ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = excluded.issued",
        );
    }
    for (table, rows) in &plan.rows {
        upsert_rows(&mut write, table, rows);
    }
    if !plan.attempts.is_empty() {
        write.insert(
            "gift_attempts",
            vec![
                ("member_id", "bigint", ints(&plan.attempts, |row| row.0)),
                ("at_ms", "bigint", ints(&plan.attempts, |row| row.1)),
            ],
            "",
        );
    }
    write.run(&mut *connection, plan.head, plan.recorded_at_ms).await?;
    for review in &plan.reviews {
        sqlx::query("INSERT INTO reviews (coupon_id, salt, text) VALUES ($1, $2, $3)")
            .bind(review.coupon_id)
            .bind(&review.salt)
            .bind(&review.text)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn ints<T>(rows: &[T], of: impl Fn(&T) -> i64) -> Values {
    Values::Ints(rows.iter().map(of).collect())
}

fn insert_events(write: &mut WideWrite, plan: &Plan<'_>) {
    let events = &plan.events;
    let texts = |of: fn(&super::admission::PlannedEvent<'_>) -> String| Values::Texts(events.iter().map(of).collect());
    write.insert(
        "events",
        vec![
            ("position", "bigint", ints(events, |planned| planned.position)),
            ("aggregate_type", "text", texts(|planned| planned.stream.kind.to_owned())),
            ("aggregate_id", "text", texts(|planned| planned.stream.id.to_string())),
            ("sequence", "bigint", ints(events, |planned| planned.sequence)),
            ("event_type", "text", texts(|planned| planned.event.event_type.clone())),
            ("event_version", "text", texts(|planned| planned.event.event_version.clone())),
            // Bound as text and cast: sqlx would send a JSON value as jsonb, which reorders keys.
            ("payload", "json", texts(|planned| planned.event.payload.clone())),
            ("metadata", "json", texts(|planned| planned.append.metadata.to_string())),
            ("recorded_at_ms", "bigint", ints(events, |_| plan.recorded_at_ms)),
        ],
        "",
    );
}

fn upsert_rows(write: &mut WideWrite, table: &LiveTable, rows: &[&LiveRow]) {
    let column = |place: usize, column: Column| match column {
        Column::Int(name) => {
            let cells = rows.iter().map(|row| match row.cells.get(place) {
                Some(Cell::Int(value)) => *value,
                _ => 0,
            });
            (name, "bigint", Values::Ints(cells.collect()))
        }
        Column::Text(name) => {
            let cells = rows.iter().map(|row| match row.cells.get(place) {
                Some(Cell::Text(value)) => value.clone(),
                _ => String::new(),
            });
            (name, "text", Values::Texts(cells.collect()))
        }
    };
    let columns: Vec<_> = table.columns.iter().enumerate().map(|(place, c)| column(place, *c)).collect();
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let (keys, rest) = names.split_at(table.key_columns.min(names.len()));
    let updates: Vec<String> = rest.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let then =
        format!("ON CONFLICT (bucket, {}) DO UPDATE SET {}", keys.join(", "), updates.join(", "));
    write.insert(table.name, columns, &then);
}
