//! Statistics beside the writer: what they cost it, and how far behind it they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::clock::Clock;
use coupon_ledger::store::{BUCKET, Statement, Store};

use crate::measure::{Goal, Rounds, Row, number};
use crate::rows::Settings;
use crate::world::World;

/// How long the follower may take to what is there when it begins.
const CATCH_UP: Duration = Duration::from_mins(10);

/// Redeems while the statistics rest and while they follow, in turns.
pub async fn statistics(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    world.stock_up(world.enough(settings.all_rounds() * 2, connections)).await?;
    world.serve(1).await?;
    let began = Instant::now();
    let first = reached(world.look()).await?;
    caught_up(world).await?;
    let (counted, took) = (world.head().await? - first, began.elapsed());
    let (mut alone, mut beside) = (Rounds::default(), Rounds::default());
    let mut furthest_ms = 0;
    for _ in 0..settings.rounds {
        tell(world, "pause").await?;
        let (round, cores, _) = world.redeem(1, connections, settings.duration(), true).await?;
        alone.push(round, Some(cores));
        tell(world, "resume").await?;
        caught_up(world).await?;
        let done = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn(watch(world.look().clone(), done.clone()));
        let (round, cores, _) = world.redeem(1, connections, settings.duration(), true).await?;
        beside.push(round, Some(cores));
        done.store(true, Ordering::Relaxed);
        furthest_ms = furthest_ms.max(watching.await??);
        caught_up(world).await?;
    }
    let kept = beside.rate() / alone.rate();
    let name = format!("redeem, {connections} connections, counted by the statistics");
    let mut row = Row::new(name, world.engine.name(), beside);
    row.goals.push(Goal::at_least("of the rate while they rest", Some(kept), 0.9));
    row.goals.push(Goal::at_most("seconds behind at the most", Some(furthest_ms as f64 / 1_000.0), 2.0));
    row.notes.push(format!("while they rest {} a second", number(alone.rate())));
    row.notes.push(format!(
        "catching up: {} events in {:.1} s, {} a second",
        number(counted as f64),
        took.as_secs_f64(),
        number(counted as f64 / took.as_secs_f64())
    ));
    Ok(row.announce())
}

async fn tell(world: &World, order: &str) -> anyhow::Result<()> {
    let server = world.servers().first().context("no server")?;
    let answer =
        server.post(&format!("/v1/followers/statistics/{order}"), &world.operator(), "").await?;
    ensure!(answer.contains("\"statistics\""), "{answer}");
    // A follower heeds it at its next step.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

async fn reached(look: &Store) -> anyhow::Result<i64> {
    let sql = "SELECT value FROM checkpoints WHERE bucket = $1 AND name = 'statistics'";
    let rows = look.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

async fn caught_up(world: &World) -> anyhow::Result<()> {
    let began = Instant::now();
    while reached(world.look()).await? < world.head().await? {
        ensure!(began.elapsed() < CATCH_UP, "the statistics do not catch up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How old the oldest event was that was not counted, at the worst, in milliseconds.
async fn watch(look: Store, done: Arc<AtomicBool>) -> anyhow::Result<i64> {
    let mut furthest_ms = 0;
    while !done.load(Ordering::Relaxed) {
        let seen = reached(&look).await?;
        let waiting = look.events_after(seen, 1).await?;
        let age = waiting.first().map_or(0, |event| Clock::System.now_ms() - event.recorded_at_ms);
        furthest_ms = furthest_ms.max(age);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(furthest_ms)
}
