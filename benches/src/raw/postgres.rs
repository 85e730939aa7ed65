//! PostgreSQL by hand: batches by COPY and one wide statement ([`batch`]), single commands by one wide statement.

mod batch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::read_model::{REDEMPTIONS, WALLET};
use coupon_ledger::store::{Column, LiveTable};
use futures::TryStreamExt as _;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{ConnectOptions as _, Executor as _, PgConnection, PgPool, Postgres, Row as _};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use self::batch::Batch;
use super::sample::{self, CellOf, Samples};
use super::{Kind, NARROW, Slots, Turns, migrate, round};
use crate::load::PLAIN;
use crate::measure::Round;
use crate::peers::Scattered;

/// The log of single statements: the events' columns and keys, without what numbers positions.
const SINGLE: &str = "CREATE TABLE single (LIKE events INCLUDING ALL)";

/// A database with coupons and one connection.
pub struct Raw {
    url: String,
    loaded: i64,
    samples: Arc<Samples>,
    scattered: Scattered,
    writer: Mutex<Writer>,
    /// The next position in the log of single statements.
    single: AtomicI64,
}

struct Writer {
    connection: PgConnection,
    turns: Turns,
}

/// Arrays to bind, in order.
#[derive(Default)]
struct Columns {
    names: Vec<(String, &'static str)>,
    values: Vec<Values>,
}

enum Values {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Columns {
    fn ints(&mut self, name: &str, values: Vec<i64>) {
        self.names.push((name.to_owned(), "bigint[]"));
        self.values.push(Values::Ints(values));
    }

    fn texts(&mut self, name: &str, values: Vec<String>) {
        self.names.push((name.to_owned(), "text[]"));
        self.values.push(Values::Texts(values));
    }

    /// The columns of a live table, one row per coupon; those named already are the same and are left out.
    fn live<'a, I: Iterator<Item = CellOf<'a>>>(&mut self, table: &LiveTable, rows: impl Iterator<Item = I>) {
        let known = self.names.len();
        let mut values: Vec<Values> = table
            .columns
            .iter()
            .map(|column| match column {
                Column::Int(_) => Values::Ints(Vec::new()),
                Column::Text(_) => Values::Texts(Vec::new()),
            })
            .collect();
        for row in rows {
            for (cell, values) in row.zip(&mut values) {
                match (cell, values) {
                    (CellOf::Int(value), Values::Ints(values)) => values.push(value),
                    (CellOf::Text(text), Values::Texts(values)) => values.push(text.to_owned()),
                    _ => {}
                }
            }
        }
        for (column, values) in table.columns.iter().zip(values) {
            if self.names.iter().take(known).any(|(name, _)| name == column.name()) {
                continue;
            }
            match values {
                Values::Ints(values) => self.ints(column.name(), values),
                Values::Texts(values) => self.texts(column.name(), values),
            }
        }
    }

    /// `b AS (SELECT * FROM unnest(…) AS q (…))`
    fn unnest(&self) -> String {
        let arrays =
            self.names.iter().enumerate().map(|(place, (_, kind))| format!("${}::{kind}", place + 1));
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        format!("b AS (SELECT * FROM unnest({arrays}) AS q ({}))", names.join(", "))
    }

    fn bind(self, query: Query<'_, Postgres, PgArguments>) -> Query<'_, Postgres, PgArguments> {
        self.values.into_iter().fold(query, |query, values| match values {
            Values::Ints(values) => query.bind(values),
            Values::Texts(values) => query.bind(values),
        })
    }
}

/// An upsert of a live table from `b`.
fn upsert(table: &LiveTable) -> String {
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let (keys, rest) = names.split_at(table.key_columns);
    let updates: Vec<_> = rest.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let (all, keys, updates) = (names.join(", "), keys.join(", "), updates.join(", "));
    format!(
        "INSERT INTO {} (bucket, {all}) SELECT 0, {all} FROM b ON CONFLICT (bucket, {keys}) DO UPDATE SET {updates}",
        table.name
    )
}

impl Raw {
    /// Makes the product's tables in an empty database, and fills them set by set with coupons in the product's shape:
    /// issued, opened by their holders, half of them with a receipt.
    pub async fn prepare(url: &str, loaded: i64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        migrate(folder.path(), Some(url)).await?;
        let options: PgConnectOptions = url.parse()?;
        let mut connection = options.connect().await?;
        let samples = Arc::new(Samples::take()?);
        let at_ms = samples.at_ms;
        let metadata = |key: Option<&str>| {
            format!(
                "replace('{}', 'member:0', 'member:' || g)",
                sample::metadata("member:0", "member", 0, key)
            )
        };
        let series = format!("generate_series(1, {loaded}) AS g");
        let event = |sample: &sample::Sample, before: i64, sequence: i64| {
            format!(
                "INSERT INTO events SELECT 0, {before} + g, 'coupon', g::text, {sequence}, '{}', '{}', {}::json, {}::json,
                 {at_ms} FROM {series}",
                sample.event_type,
                sample.event_version,
                sample.payload_sql("g::text"),
                metadata(None)
            )
        };
        let names: Vec<&str> = WALLET.columns.iter().copied().map(Column::name).collect();
        let statements = [
            event(&samples.issued, 0, 1),
            event(&samples.viewed, loaded, 2),
            format!(
                "INSERT INTO wallet_v1 (bucket, {}) SELECT 0, {} FROM {series}",
                names.join(", "),
                samples.viewed.wallet_sql("g")
            ),
            format!("INSERT INTO member_counts_v1 SELECT 0, g, {PLAIN}, 1 FROM {series}"),
            format!(
                "INSERT INTO receipts SELECT 0, 'member:' || g, 'couponinfo', 'load-' || g, '{0}{0}', {loaded} + g, 1
                 FROM {series} WHERE g % 2 = 0",
                sample::hex(1)
            ),
            format!("INSERT INTO stock_v1 VALUES (0, {PLAIN}, -1, {loaded})"),
            format!("UPDATE log_head SET position = 2 * {loaded}, last_ms = {at_ms}"),
            NARROW.to_owned(),
            format!("INSERT INTO narrow SELECT 0, g, 'viewed' FROM {series}"),
            SINGLE.to_owned(),
            "VACUUM (ANALYZE)".to_owned(),
            "CHECKPOINT".to_owned(),
            "PREPARE lock_head AS SELECT position FROM log_head WHERE bucket = 0 FOR UPDATE".to_owned(),
        ];
        for statement in &statements {
            connection
                .execute(statement.as_str())
                .await
                .with_context(|| statement.chars().take(80).collect::<String>())?;
        }
        let writer = Writer { connection, turns: Turns::default() };
        Ok(Self {
            url: url.to_owned(),
            loaded,
            samples,
            scattered: Scattered::new(loaded),
            writer: Mutex::new(writer),
            single: AtomicI64::new(1),
        })
    }

    /// Batches of one kind on one connection, one after the other; times are a batch's.
    pub async fn round(&self, kind: Kind, batch: usize, duration: Duration) -> anyhow::Result<Round> {
        let mut writer = self.writer.lock().await;
        let Writer { connection, turns } = &mut *writer;
        let head: i64 =
            sqlx::query_scalar("SELECT position FROM log_head").fetch_one(&mut *connection).await?;
        // The next batch is rendered while this one is written: on one connection, but not on one core.
        let mut render = |position| {
            let (samples, streams) =
                (self.samples.clone(), turns.take(kind, &self.scattered, self.loaded, batch));
            spawn_blocking(move || Batch::render(kind, &samples, &Slots { position, streams }))
        };
        let mut next = render(head + 1);
        let started = Instant::now();
        let (mut done, mut micros) = (0, Vec::new());
        while started.elapsed() < duration {
            let begun = Instant::now();
            let rendered = next.await?;
            next = render(rendered.position + batch as i64);
            let locked = connection.fetch_one("BEGIN; EXECUTE lock_head").await?;
            let head: i64 = locked.try_get(0)?;
            ensure!(head + 1 == rendered.position, "the head is at {head}: somebody else writes");
            rendered.write(connection).await?;
            connection.execute("COMMIT").await?;
            micros.push(begun.elapsed().as_micros() as u32);
            done += batch;
        }
        let round = round(done, started, micros);
        let written: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events WHERE bucket = 0 AND position > $1")
                .bind(head)
                .fetch_one(connection)
                .await?;
        ensure!(written == done as i64, "{done} commands left {written} events");
        Ok(round)
    }

    /// One at a time: the stream is read, then one transaction writes what a redeem writes.
    pub async fn load_and_write(&self, duration: Duration) -> anyhow::Result<Round> {
        let mut writer = self.writer.lock().await;
        let started = Instant::now();
        let mut micros = Vec::new();
        while started.elapsed() < duration {
            let begun = Instant::now();
            let coupon = self.scattered.at(writer.turns.redeem);
            let stream = sqlx::query(
                "SELECT position, sequence, event_type, event_version, payload::text, metadata::text, recorded_at_ms
                 FROM events WHERE aggregate_type = 'coupon' AND aggregate_id = $1 AND bucket = 0 ORDER BY sequence",
            )
            .bind(coupon.to_string())
            .fetch_all(&mut writer.connection)
            .await?;
            ensure!(stream.len() >= 2, "coupon {coupon} has {} events", stream.len());
            self.redeem_one(&mut writer).await?;
            micros.push(begun.elapsed().as_micros() as u32);
        }
        Ok(round(micros.len(), started, micros))
    }

    /// One event a transaction, one statement, over many connections; no head, no other row.
    pub async fn single_statements(&self, connections: usize, duration: Duration) -> anyhow::Result<Round> {
        let pool = PgPoolOptions::new()
            .min_connections(connections as u32)
            .max_connections(connections as u32)
            .test_before_acquire(false)
            .connect(&self.url)
            .await?;
        let started = Instant::now();
        let one = async |mut connection: sqlx::pool::PoolConnection<sqlx::Postgres>| {
            let mut micros = Vec::new();
            while started.elapsed() < duration {
                let begun = Instant::now();
                let position = self.single.fetch_add(1, Ordering::Relaxed);
                let coupon = self.scattered.at(position);
                let redeemed = &self.samples.redeemed;
                sqlx::query(
                    "INSERT INTO single VALUES (0, $1, 'coupon', $2, $3, $4, $5, $6::text::json, $7::text::json, $8)",
                )
                .bind(position)
                .bind(coupon.to_string())
                .bind(1 + position / self.loaded)
                .bind(&redeemed.event_type)
                .bind(&redeemed.event_version)
                .bind(redeemed.payload(coupon, position))
                .bind(sample::metadata(&sample::caller(coupon), "member", position, Some("redeem-1")))
                .bind(self.samples.at_ms)
                .execute(&mut *connection)
                .await?;
                micros.push(begun.elapsed().as_micros() as u32);
            }
            anyhow::Ok(micros)
        };
        let mut held = Vec::new();
        for _ in 0..connections {
            held.push(pool.acquire().await?);
        }
        let all = futures::future::try_join_all(held.into_iter().map(one)).await?.concat();
        let round = round(all.len(), started, all);
        pool.close().await;
        Ok(round)
    }

    /// One redeem in a transaction of its own: COPY has no use here, one wide statement saves the round trips.
    async fn redeem_one(&self, writer: &mut Writer) -> anyhow::Result<()> {
        let Writer { connection, turns } = writer;
        let streams = turns.take(Kind::Redeem, &self.scattered, self.loaded, 1);
        let (coupon, sequence) = *streams.first().context("no coupon")?;
        let locked = connection.fetch_one("BEGIN; EXECUTE lock_head").await?;
        let position: i64 = locked.try_get::<i64, _>(0)? + 1;
        let redeemed = &self.samples.redeemed;
        let mut columns = Columns::default();
        columns.ints("position", vec![position]);
        columns.ints("coupon_id", vec![coupon]);
        columns.ints("sequence", vec![sequence]);
        columns.texts("payload", vec![redeemed.payload(coupon, position)]);
        columns.texts("metadata", vec![Kind::Redeem.metadata(position, coupon)]);
        columns.texts("caller", vec![sample::caller(coupon)]);
        columns.texts("key", vec![format!("redeem-{position}")]);
        columns.texts("request_mac", vec![sample::hex(position).repeat(2)]);
        columns.live(&WALLET, std::iter::once(redeemed.wallet(coupon)));
        columns.live(&REDEMPTIONS, std::iter::once(redeemed.redemption(coupon, position)));
        let at_ms = self.samples.at_ms;
        let sql = format!(
            "WITH {},
             e AS (INSERT INTO events SELECT 0, position, 'coupon', coupon_id::text, sequence, '{}', '{}', payload::json,
                   metadata::json, {at_ms} FROM b),
             c AS (INSERT INTO receipts SELECT 0, caller, 'auditcoupon', key, request_mac, position, 1 FROM b),
             w AS ({}),
             r AS ({})
             UPDATE log_head SET position = ${}, last_ms = {at_ms} WHERE bucket = 0",
            columns.unnest(),
            redeemed.event_type,
            redeemed.event_version,
            upsert(&WALLET),
            upsert(&REDEMPTIONS),
            columns.names.len() + 1
        );
        connection.execute(columns.bind(sqlx::query(&sql)).bind(position)).await?;
        connection.execute("COMMIT").await?;
        Ok(())
    }
}

/// How many rows of a ledger's log a second can be read in order, undecoded: the better one of a stream of rows and COPY.
pub struct ReadRows {
    pool: PgPool,
    limit: i64,
}

impl ReadRows {
    /// The log of a ledger, up to so many rows.
    pub async fn prepare(url: &str, limit: i64) -> anyhow::Result<Self> {
        Ok(Self { pool: PgPoolOptions::new().max_connections(1).connect(url).await?, limit })
    }

    /// Reads them once either way.
    pub async fn round(&self) -> anyhow::Result<Round> {
        let (streamed, copied) = (self.stream().await?, self.copy().await?);
        ensure!(streamed.done == copied.done, "{} rows streamed, {} copied", streamed.done, copied.done);
        Ok(if streamed.seconds < copied.seconds { streamed } else { copied })
    }

    async fn stream(&self) -> anyhow::Result<Round> {
        let started = Instant::now();
        let mut done = 0;
        let query = sqlx::query(
            "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text,
                    metadata::text, recorded_at_ms
             FROM events WHERE bucket = 0 ORDER BY position LIMIT $1",
        )
        .bind(self.limit);
        let mut rows = query.fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let payload: &str = row.try_get(6)?;
            std::hint::black_box((payload, row.try_get::<i64, _>(0)?));
            done += 1;
        }
        Ok(round(done, started, Vec::new()))
    }

    async fn copy(&self) -> anyhow::Result<Round> {
        let started = Instant::now();
        let mut done = 0;
        let copy = format!(
            "COPY (SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                          recorded_at_ms
                   FROM events WHERE bucket = 0 ORDER BY position LIMIT {}) TO STDOUT",
            self.limit
        );
        let mut chunks = self.pool.copy_out_raw(&copy).await?;
        while let Some(chunk) = chunks.try_next().await? {
            // Line ends inside of values are escaped.
            done += memchr::memchr_iter(b'\n', &chunk).count();
        }
        Ok(round(done, started, Vec::new()))
    }
}
