//! `cqrs-es` on `sqlite-es` with one `GenericQuery`, synchronous=FULL: its default is NORMAL, which a power cut undoes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateError, CqrsFramework};
use sqlite_es::{SqliteCqrs, SqliteEventRepository, SqliteViewRepository};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::coupon::{Command, Coupon, MEMBERS, Refusal, TEMPLATE_MEMBER, WalletRow};
use super::{Scattered, check_last, closed_loop, counting_query};
use crate::measure::Round;

/// How often a command is tried again when the database was locked or its stream had moved.
const TRIES: usize = 20;

/// The crate's own tables (its migrations), with the one view.
const TABLES: &str = "
    CREATE TABLE events (
      aggregate_type text                          NOT NULL,
      aggregate_id   text                          NOT NULL,
      sequence       integer CHECK (sequence >= 0) NOT NULL,
      event_type     text                          NOT NULL,
      event_version  text                          NOT NULL,
      payload        text                          NOT NULL,
      metadata       text                          NOT NULL,
      PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    ) STRICT;
    CREATE TABLE wallet (
      view_id text                         NOT NULL,
      version integer CHECK (version >= 0) NOT NULL,
      payload text                         NOT NULL,
      PRIMARY KEY (view_id)
    ) STRICT;";

/// `cqrs-es` on SQLite with its streams loaded.
pub struct Peer {
    running: Arc<Running>,
}

struct Running {
    pool: SqlitePool,
    cqrs: SqliteCqrs<Coupon>,
    streams: Scattered,
    view_errors: Arc<AtomicU64>,
    redeemed: AtomicU64,
    tried_again: AtomicU64,
}

/// What its user chooses.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections of the pool. The crate's own default is 10, which spend their time waiting for each other's locks.
    pub pool: u32,
    /// Pages in the WAL from which on a commit writes it back; SQLite's own default is 1,000.
    pub autocheckpoint: u32,
}

impl Settings {
    /// The best that was found for it: no two connections compete, and pages are written back seldom.
    pub const BEST: Self = Self { pool: 1, autocheckpoint: 50_000 };
    /// `sqlite_es::default_sqlite_pool`, but FULL.
    pub const DEFAULT: Self = Self { pool: 10, autocheckpoint: 1_000 };
}

impl Peer {
    /// Makes the database in a folder and loads so many streams of Issued and Viewed with their view rows.
    pub async fn prepare(folder: &Path, streams: i64, settings: Settings) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("sqlite-es.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .pragma("cache_size", "-65536")
            .pragma("temp_store", "MEMORY")
            .pragma("wal_autocheckpoint", settings.autocheckpoint.to_string());
        let pool = SqlitePoolOptions::new()
            .max_connections(settings.pool)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let views = Arc::new(SqliteViewRepository::<WalletRow, Coupon>::new("wallet", pool.clone()));
        let (query, view_errors) = counting_query(views.clone());
        let store = PersistedEventStore::new_event_store(SqliteEventRepository::new(pool.clone()));
        let cqrs = CqrsFramework::new(store, vec![Box::new(query)], ());
        cqrs.execute("template", Command::Issue { member_id: TEMPLATE_MEMBER }).await?;
        cqrs.execute("template", Command::View).await?;
        copy_template(&pool, streams).await?;

        check_last(SqliteEventRepository::new(pool.clone()), &*views, streams).await?;
        let running = Running {
            pool,
            cqrs,
            streams: Scattered::new(streams),
            view_errors,
            redeemed: AtomicU64::new(0),
            tried_again: AtomicU64::new(0),
        };
        Ok(Self { running: Arc::new(running) })
    }

    /// So many callers redeem coupons, each its own.
    pub async fn round(&self, connections: usize, duration: Duration) -> anyhow::Result<Round> {
        let round = closed_loop(connections, duration, self.running.clone(), redeem).await?;
        let running = &self.running;
        let expected = running.redeemed.load(Ordering::Relaxed);
        let (events, views): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM events WHERE event_type = 'Redeemed'),
                    (SELECT count(*) FROM wallet WHERE payload->>'redemption_id' <> 0)",
        )
        .fetch_one(&running.pool)
        .await?;
        let (view_errors, again) =
            (running.view_errors.load(Ordering::Relaxed), running.tried_again.load(Ordering::Relaxed));
        ensure!(events as u64 == expected, "{expected} redeemed, but {events} events");
        // A view that met a locked database stays behind: the crate has no way to catch up but a replay.
        ensure!(
            views as u64 + view_errors == expected,
            "{expected} redeemed, but {views} views and {view_errors} view errors"
        );
        if view_errors > 0 || again > 0 {
            eprintln!("sqlite-es so far: {view_errors} views not updated, {again} commands tried again");
        }
        Ok(round)
    }
}

async fn redeem(running: Arc<Running>, _caller: usize) -> anyhow::Result<()> {
    let stream = running.streams.take_unused()?;
    for _ in 0..TRIES {
        let command = Command::Redeem { redemption_id: stream };
        match running.cqrs.execute(&stream.to_string(), command).await {
            Ok(()) => {
                running.redeemed.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(AggregateError::AggregateConflict) => {}
            Err(error) if is_locked(&error) => {}
            Err(error) => return Err(error.into()),
        }
        running.tried_again.fetch_add(1, Ordering::Relaxed);
    }
    anyhow::bail!("stream {stream} was locked {TRIES} times")
}

/// The crate hands SQLITE_BUSY on as an unexpected error.
fn is_locked(error: &AggregateError<Refusal>) -> bool {
    matches!(error, AggregateError::UnexpectedError(source) if source.to_string().contains("locked"))
}

/// Copies what the crate itself has just written for one stream, so that every byte but the ids is its own.
async fn copy_template(pool: &SqlitePool, streams: i64) -> anyhow::Result<()> {
    let payload = format!("replace(t.payload, '{TEMPLATE_MEMBER}', CAST(g % {MEMBERS} + 1 AS TEXT))");
    let series = format!(
        "WITH RECURSIVE series (g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM series WHERE g < {streams})"
    );
    sqlx::raw_sql(&format!(
        "BEGIN;
         {series} INSERT INTO events
         SELECT t.aggregate_type, CAST(g AS TEXT), t.sequence, t.event_type, t.event_version, {payload}, t.metadata
         FROM series CROSS JOIN events AS t WHERE t.aggregate_id = 'template';
         {series} INSERT INTO wallet
         SELECT CAST(g AS TEXT), t.version, {payload} FROM series CROSS JOIN wallet AS t
         WHERE t.view_id = 'template';
         DELETE FROM events WHERE aggregate_id = 'template';
         DELETE FROM wallet WHERE view_id = 'template';
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);
         ANALYZE;"
    ))
    .execute(pool)
    .await?;
    Ok(())
}
