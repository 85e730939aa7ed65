//! `cqrs-es` on `postgres-es` with one `GenericQuery`: load, BEGIN, INSERT, COMMIT, load the view, update it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cqrs_es::CqrsFramework;
use cqrs_es::persist::PersistedEventStore;
use postgres_es::{PostgresCqrs, PostgresEventRepository, PostgresViewRepository};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::coupon::{Command, Coupon, MEMBERS, TEMPLATE_MEMBER, WalletRow};
use super::{Scattered, check_last, closed_loop, counting_query};
use crate::measure::Round;

/// What `postgres_es::default_postgress_pool` has.
const POOL: u32 = 10;

/// The crate's own tables (its db/init.sql), with the one view. Without snapshots: they cost more than they save on
/// streams of three events.
const TABLES: &str = "
    CREATE TABLE events (
      aggregate_type text                         NOT NULL,
      aggregate_id   text                         NOT NULL,
      sequence       bigint CHECK (sequence >= 0) NOT NULL,
      event_type     text                         NOT NULL,
      event_version  text                         NOT NULL,
      payload        json                         NOT NULL,
      metadata       json                         NOT NULL,
      PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    );
    CREATE TABLE wallet (
      view_id text                        NOT NULL,
      version bigint CHECK (version >= 0) NOT NULL,
      payload json                        NOT NULL,
      PRIMARY KEY (view_id)
    );";

/// `cqrs-es` on PostgreSQL with its streams loaded.
pub struct Peer {
    running: Arc<Running>,
}

struct Running {
    pool: PgPool,
    cqrs: PostgresCqrs<Coupon>,
    streams: Scattered,
    view_errors: Arc<AtomicU64>,
    redeemed: AtomicU64,
}

impl Peer {
    /// Makes the tables in an empty database and loads so many streams of Issued and Viewed with their view rows.
    pub async fn prepare(url: &str, streams: i64) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(POOL)
            // Saves a round trip per acquire; a user who counts them turns it off.
            .test_before_acquire(false)
            .connect(url)
            .await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let views = Arc::new(PostgresViewRepository::<WalletRow, Coupon>::new("wallet", pool.clone()));
        let (query, view_errors) = counting_query(views.clone());
        let store = PersistedEventStore::new_event_store(PostgresEventRepository::new(pool.clone()));
        let cqrs = CqrsFramework::new(store, vec![Box::new(query)], ());
        cqrs.execute("template", Command::Issue { member_id: TEMPLATE_MEMBER }).await?;
        cqrs.execute("template", Command::View).await?;
        copy_template(&pool, streams).await?;

        check_last(PostgresEventRepository::new(pool.clone()), &*views, streams).await?;
        let running = Running {
            pool,
            cqrs,
            streams: Scattered::new(streams),
            view_errors,
            redeemed: AtomicU64::new(0),
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
                    (SELECT count(*) FROM wallet WHERE payload->>'redemption_id' <> '0')",
        )
        .fetch_one(&running.pool)
        .await?;
        let view_errors = running.view_errors.load(Ordering::Relaxed);
        ensure!(
            events as u64 == expected && views as u64 == expected && view_errors == 0,
            "{expected} redeemed, but {events} events, {views} views, {view_errors} view errors"
        );
        Ok(round)
    }
}

async fn redeem(running: Arc<Running>, _caller: usize) -> anyhow::Result<()> {
    let stream = running.streams.take_unused()?;
    running.cqrs.execute(&stream.to_string(), Command::Redeem { redemption_id: stream }).await?;
    running.redeemed.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Copies what the crate itself has just written for one stream, so that every byte but the ids is its own.
async fn copy_template(pool: &PgPool, streams: i64) -> anyhow::Result<()> {
    let member = format!("(g % {MEMBERS} + 1)::text");
    let payload = format!("replace(t.payload::text, '{TEMPLATE_MEMBER}', {member})::json");
    sqlx::raw_sql(&format!(
        "INSERT INTO events
         SELECT t.aggregate_type, g::text, t.sequence, t.event_type, t.event_version, {payload}, t.metadata
         FROM generate_series(1, {streams}) AS g CROSS JOIN events AS t WHERE t.aggregate_id = 'template';
         INSERT INTO wallet
         SELECT g::text, t.version, {payload} FROM generate_series(1, {streams}) AS g CROSS JOIN wallet AS t
         WHERE t.view_id = 'template';
         DELETE FROM events WHERE aggregate_id = 'template';
         DELETE FROM wallet WHERE view_id = 'template';"
    ))
    .execute(pool)
    .await?;
    sqlx::raw_sql("VACUUM ANALYZE").execute(pool).await?;
    sqlx::raw_sql("CHECKPOINT").execute(pool).await?;
    Ok(())
}
