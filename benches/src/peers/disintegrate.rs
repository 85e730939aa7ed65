//! `disintegrate-postgres`: a decision on the coupon's own events, checked when it is persisted. It writes no view.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use disintegrate::serde::json::Json;
use disintegrate::{Decision, Event as _, NoSnapshot, StateMutate, StateQuery};
use disintegrate_postgres::{Error, PgDecisionMaker, PgEventStore, decision_maker};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::coupon::{Issue, MEMBERS, TEMPLATE_MEMBER};
use super::{Scattered, closed_loop};
use crate::measure::Round;

const POOL: u32 = 10;

/// How often a command is tried again after a concurrent modification, which SERIALIZABLE also reports where there
/// was none.
const TRIES: usize = 1_000;

/// Stands in the template events where every loaded stream has its id.
const TEMPLATE_COUPON: i64 = 7_000_000_000_011;

/// The crate's own function but for its hexadecimal literal, which PostgreSQL reads from 16 on.
const BEGIN_EPOCH: &str = "
    CREATE OR REPLACE FUNCTION event_store_begin_epoch() RETURNS void AS $$
    DECLARE
        id BIGINT;
        db_id INT;
    BEGIN
        SELECT last_value INTO id FROM seq_event_event_id;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        PERFORM pg_try_advisory_xact_lock_shared(db_id, 0);
        PERFORM pg_try_advisory_xact_lock_shared(1, (id & 4294967295)::bit(32)::integer);
        PERFORM pg_try_advisory_xact_lock_shared(2, (id >> 32)::bit(32)::integer);
    END;
    $$ LANGUAGE plpgsql;";

/// The rest of what its migrator makes for these events: the files of its event_store/sql, then the id's column.
const TABLES: &str = "
    CREATE SEQUENCE IF NOT EXISTS seq_event_event_id;
    CREATE TABLE IF NOT EXISTS event (
        event_id BIGINT PRIMARY KEY DEFAULT nextval('seq_event_event_id'),
        event_type VARCHAR(255),
        payload BYTEA,
        inserted_at TIMESTAMP DEFAULT now()
    );
    CREATE INDEX IF NOT EXISTS idx_event_type_btree ON event(event_type);
    CREATE OR REPLACE FUNCTION event_store_current_epoch() RETURNS BIGINT AS $$
    DECLARE
        persisted_event_id BIGINT;
        pending_event_id BIGINT;
        db_id INT;
    BEGIN
        SELECT COALESCE(MAX(event_id), 0) INTO persisted_event_id FROM event;
        SELECT oid INTO db_id FROM pg_database WHERE datname = current_database();
        SELECT MIN((l3.objid::bigint << 32) + l2.objid::bigint)
        INTO pending_event_id
        FROM pg_locks l1
        INNER JOIN pg_locks l2 ON l1.pid = l2.pid
        INNER JOIN pg_locks l3 ON l1.pid = l3.pid
        WHERE l1.classid = db_id AND l2.classid = 1 AND l3.classid = 2 AND l1.locktype = 'advisory';
        RETURN LEAST(COALESCE(pending_event_id, persisted_event_id), persisted_event_id);
    END;
    $$ LANGUAGE plpgsql;
    ALTER TABLE event ADD COLUMN IF NOT EXISTS coupon_id BIGINT;
    CREATE INDEX IF NOT EXISTS idx_event_coupon_id ON event (coupon_id) WHERE coupon_id IS NOT NULL;";

#[derive(Clone, Debug, PartialEq, disintegrate::Event, Serialize, Deserialize)]
enum CouponEvent {
    Issued {
        #[id]
        coupon_id: i64,
        issue: Box<Issue>,
    },
    Viewed {
        #[id]
        coupon_id: i64,
        member_id: i64,
        at_ms: i64,
    },
    Redeemed {
        #[id]
        coupon_id: i64,
        redemption_id: i64,
        member_id: i64,
        shop_id: i64,
        employee_id: i64,
        at_ms: i64,
    },
}

#[derive(Clone, Debug, Default, StateQuery, Serialize, Deserialize)]
#[state_query(CouponEvent)]
struct Coupon {
    #[id]
    coupon_id: i64,
    member_id: i64,
    viewed: bool,
    redeemed: bool,
}

impl StateMutate for Coupon {
    fn mutate(&mut self, event: Self::Event) {
        match event {
            CouponEvent::Issued { issue, .. } => self.member_id = issue.member_id(),
            CouponEvent::Viewed { .. } => self.viewed = true,
            CouponEvent::Redeemed { .. } => self.redeemed = true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such coupon")]
    Unknown,
    #[error("not opened yet: the second event was not loaded")]
    NotViewed,
    #[error("already used")]
    AlreadyUsed,
}

#[derive(Clone)]
enum Command {
    Issue { coupon_id: i64, member_id: i64 },
    View { coupon_id: i64 },
    Redeem { coupon_id: i64 },
}

impl Decision for Command {
    type Event = CouponEvent;
    type StateQuery = Coupon;
    type Error = Refusal;

    fn state_query(&self) -> Coupon {
        let (Self::Issue { coupon_id, .. } | Self::View { coupon_id } | Self::Redeem { coupon_id }) = *self;
        Coupon { coupon_id, ..Coupon::default() }
    }

    fn process(&self, coupon: &Coupon) -> Result<Vec<CouponEvent>, Refusal> {
        let (member_id, at_ms) = (coupon.member_id, 1_793_600_000_000);
        match *self {
            Self::Issue { coupon_id, member_id } => {
                Ok(vec![CouponEvent::Issued { coupon_id, issue: Box::new(Issue::to(member_id)) }])
            }
            _ if member_id == 0 => Err(Refusal::Unknown),
            Self::View { coupon_id } => Ok(vec![CouponEvent::Viewed { coupon_id, member_id, at_ms }]),
            Self::Redeem { .. } if !coupon.viewed => Err(Refusal::NotViewed),
            Self::Redeem { .. } if coupon.redeemed => Err(Refusal::AlreadyUsed),
            Self::Redeem { coupon_id } => Ok(vec![CouponEvent::Redeemed {
                coupon_id,
                redemption_id: coupon_id,
                member_id,
                shop_id: 1,
                employee_id: 0,
                at_ms,
            }]),
        }
    }
}

/// `disintegrate-postgres` with its streams loaded.
pub struct Peer {
    running: Arc<Running>,
}

struct Running {
    pool: PgPool,
    maker: PgDecisionMaker<CouponEvent, Json<CouponEvent>, NoSnapshot>,
    streams: Scattered,
    redeemed: AtomicU64,
    tried_again: AtomicU64,
}

impl Peer {
    /// Makes the tables in an empty database and loads so many streams of Issued and Viewed.
    pub async fn prepare(url: &str, streams: i64) -> anyhow::Result<Self> {
        // Its queries hold their values as text, so each is new: a cache of statements would only be turned over.
        let options = url.parse::<PgConnectOptions>()?.statement_cache_capacity(0);
        let pool = PgPoolOptions::new()
            .max_connections(POOL)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        ensure!(
            CouponEvent::SCHEMA.domain_ids.len() == 1,
            "the table below has one id: {:?}",
            CouponEvent::SCHEMA.domain_ids
        );
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        sqlx::raw_sql(BEGIN_EPOCH).execute(&pool).await?;
        let store = PgEventStore::new_uninitialized(pool.clone(), Json::<CouponEvent>::default());
        let maker = decision_maker(store, NoSnapshot);
        let template = Command::Issue { coupon_id: TEMPLATE_COUPON, member_id: TEMPLATE_MEMBER };
        maker.make(template).await?;
        maker.make(Command::View { coupon_id: TEMPLATE_COUPON }).await?;
        copy_template(&pool, streams).await?;
        let running = Running {
            pool,
            maker,
            streams: Scattered::new(streams),
            redeemed: AtomicU64::new(0),
            tried_again: AtomicU64::new(0),
        };
        Ok(Self { running: Arc::new(running) })
    }

    /// So many callers redeem coupons, each its own. That a stream loads is part of the rule: it refuses otherwise.
    pub async fn round(&self, connections: usize, duration: Duration) -> anyhow::Result<Round> {
        let round = closed_loop(connections, duration, self.running.clone(), redeem).await?;
        let running = &self.running;
        let expected = running.redeemed.load(Ordering::Relaxed);
        let events: i64 = sqlx::query_scalar("SELECT count(*) FROM event WHERE event_type = 'Redeemed'")
            .fetch_one(&running.pool)
            .await?;
        ensure!(events as u64 == expected, "{expected} redeemed, but {events} events");
        let again = running.tried_again.load(Ordering::Relaxed);
        if again > 0 {
            eprintln!("disintegrate so far: {again} commands tried again");
        }
        Ok(round)
    }
}

async fn redeem(running: Arc<Running>, _caller: usize) -> anyhow::Result<()> {
    let coupon_id = running.streams.take_unused()?;
    for _ in 0..TRIES {
        match running.maker.make(Command::Redeem { coupon_id }).await {
            Ok(events) => {
                ensure!(events.len() == 1, "{} events", events.len());
                running.redeemed.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(disintegrate::DecisionError::StateStore(source)) if is_concurrency(&*source) => {}
            Err(error) => return Err(error.into()),
        }
        running.tried_again.fetch_add(1, Ordering::Relaxed);
    }
    anyhow::bail!("coupon {coupon_id} met others {TRIES} times")
}

/// The crate says Concurrency for a conflict in COMMIT only; one in a statement before it comes as the database put it.
fn is_concurrency(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    match error.downcast_ref::<Error>() {
        Some(Error::Concurrency) => true,
        Some(Error::Database(sqlx::Error::Database(error))) => error.code().as_deref() == Some("40001"),
        _ => false,
    }
}

/// Copies what the crate itself has just written for one stream, so that every byte but the ids is its own.
async fn copy_template(pool: &PgPool, streams: i64) -> anyhow::Result<()> {
    sqlx::raw_sql(&format!(
        "INSERT INTO event (event_type, payload, coupon_id)
         SELECT t.event_type,
                convert_to(replace(replace(convert_from(t.payload, 'UTF8'), '{TEMPLATE_MEMBER}',
                                           (g % {MEMBERS} + 1)::text), '{TEMPLATE_COUPON}', g::text), 'UTF8'),
                g
         FROM generate_series(1, {streams}) AS g CROSS JOIN event AS t WHERE t.coupon_id = {TEMPLATE_COUPON}
         ORDER BY g, t.event_id;
         DELETE FROM event WHERE coupon_id = {TEMPLATE_COUPON};"
    ))
    .execute(pool)
    .await?;
    sqlx::raw_sql("VACUUM ANALYZE").execute(pool).await?;
    sqlx::raw_sql("CHECKPOINT").execute(pool).await?;
    Ok(())
}
