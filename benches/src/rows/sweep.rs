//! The sweep over coupons that have ended: alone, and while members redeem at half their full rate.
//!
//! The coupons are issued in this process by a clock that shows a day in the past; then the program runs by the real
//! clock, and its housekeeping sweeps by itself, from its start on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::definition::Validity;
use coupon_ledger::store::{BUCKET, Statement, Store};

use crate::client::Pace;
use crate::load;
use crate::measure::{Cores, Goal, Round, Rounds, Row, number};
use crate::rivals::Rivals;
use crate::rows::Settings;
use crate::work::Redeems;
use crate::world::{Engine, World};

const DAY_MS: i64 = 86_400_000;

/// How often the log's head is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A sweep that stands still for so long is broken.
const STALLED: Duration = Duration::from_secs(60);

/// Below it a small load would be swept before the first member redeems.
const FEWEST_TOGETHER: i64 = 100_000;

/// Thirds: the sweep's own rounds.
const PARTS: i64 = 3;

/// Both rows.
pub async fn sweep(
    engine: &Engine,
    settings: &Settings,
    connections: usize,
    rivals: Rivals,
) -> anyhow::Result<Vec<Row>> {
    let ended = settings.scaled(1_000_000);
    let mut world = world(engine, settings, "sweep_alone", ended).await?;
    let alone = alone(&mut world, settings, ended, rivals).await?;
    let undisturbed = undisturbed(&mut world, settings, connections).await?;
    world.stop().await?;
    // Half as many are more than it gets done while members redeem, but never so few that it is through at once.
    let ended = (ended / 2).max(FEWEST_TOGETHER);
    let mut world = self::world(engine, settings, "sweep_together", ended).await?;
    let together = together(&mut world, settings, connections, ended, &undisturbed, &alone).await?;
    Ok(vec![alone, together])
}

/// Nothing but the sweep; its rounds are its thirds.
async fn alone(
    world: &mut World,
    settings: &Settings,
    ended: i64,
    mut rivals: Rivals,
) -> anyhow::Result<Row> {
    world.settle()?;
    let before = world.head().await?;
    let mut rounds = Rounds::default();
    let mut begun = Instant::now();
    world.serve(1).await?;
    for part in 1..=PARTS {
        let cpu = world.cpu_seconds(1)?;
        let (from, until) = (ended * (part - 1) / PARTS, ended * part / PARTS);
        wait_for(world.look(), before + until).await?;
        let (seconds, after) = (begun.elapsed().as_secs_f64(), world.cpu_seconds(1)?);
        let (server, database) = ((after.0 - cpu.0) / seconds, (after.1 - cpu.1) / seconds);
        let round = Round { done: (until - from) as u64, seconds, micros: Vec::new() };
        rounds.push(round, Some(Cores { server, database, client: 0.0 }));
        begun = Instant::now();
    }
    // A sweep cannot be held up between its thirds: the raw limit follows it.
    for _ in 0..settings.rounds {
        rivals.take_turns(settings.duration()).await?;
    }
    let name = format!("sweep of {} coupons", number(ended as f64));
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("of the raw limit", row.to_raw(), 0.7));
    row.notes.push("the rounds are its thirds".to_owned());
    Ok(row.announce())
}

/// Redeeming with nothing to sweep.
struct Undisturbed {
    full: Rounds,
    half: Rounds,
    /// Half the full rate.
    pace: f64,
}

async fn undisturbed(
    world: &mut World,
    settings: &Settings,
    connections: usize,
) -> anyhow::Result<Undisturbed> {
    world.stock_up(world.enough(settings.all_rounds() * 3 / 2, connections)).await?;
    world.serve(1).await?;
    let (mut full, mut half) = (Rounds::default(), Rounds::default());
    for _ in 0..settings.rounds {
        full.push(world.redeem(1, connections, settings.duration(), true).await?.0, None);
    }
    let pace = full.rate() / 2.0;
    for _ in 0..settings.rounds {
        let before = world.head().await?;
        let work = Redeems::new(world.take(paced(pace, settings.duration())), true);
        let (outcome, _) =
            world.run(1, connections, settings.duration(), Pace::PerSecond(pace), work).await?;
        let written = world.head().await? - before;
        ensure!(written as u64 == outcome.round.done, "{written} events are in the log");
        half.push(outcome.round, None);
        world.lay_ready(outcome.work.left());
    }
    Ok(Undisturbed { full, half, pace })
}

/// Redeeming at half its full rate, on a ledger whose sweep begins with the server, until either ends.
async fn together(
    world: &mut World,
    settings: &Settings,
    connections: usize,
    ended: i64,
    undisturbed: &Undisturbed,
    alone: &Row,
) -> anyhow::Result<Row> {
    let Undisturbed { full, half, pace } = undisturbed;
    let needed = paced(*pace, settings.all_rounds());
    world.stock_up(needed).await?;
    world.settle()?;
    let stop = Arc::new(AtomicBool::new(false));
    let work = Redeems::new(world.take(needed), true).until(stop.clone());
    let before = world.head().await?;
    world.serve(1).await?;
    let watched = tokio::spawn(watch_expired(world.look().clone(), before, ended, stop.clone()));
    let (head, begun) = (world.head().await?, Instant::now());
    let duration = settings.all_rounds();
    let (outcome, cores) = world.run(1, connections, duration, Pace::PerSecond(*pace), work).await?;
    // From look to look, so that what is swept around the load's ends counts with its time.
    let (written, seconds) = (world.head().await? - head, begun.elapsed().as_secs_f64());
    watched.abort();
    let redeemed = outcome.round.done as i64;
    let swept = written - redeemed;
    // Expired events are among those in the log, so the redemptions are counted by their rows.
    let sql = "SELECT COUNT(*) FROM redemptions_v1 WHERE bucket = $1";
    let rows = world.look().query(Statement::new(sql, [BUCKET.into()])).await?;
    let counted = rows.first().context("no count")?.int(0);
    ensure!(counted == redeemed, "{redeemed} redemptions were answered, {counted} are there");
    world.stop().await?;

    let mut rounds = Rounds::default();
    rounds.push(outcome.round, Some(cores));
    let sum = written as f64 / seconds / full.rate();
    let swept_per_s = swept as f64 / seconds;
    let shares = redeemed as f64 / seconds / full.rate() + swept_per_s / alone.product.rate();
    let name = format!("sweep while redeeming {} per second", number(*pace));
    let mut row = Row::new(name, world.engine.name(), rounds);
    row.goals.push(Goal::at_least("both, of redeeming's full rate", Some(sum), 0.8));
    let slower = row.product.p99() / half.p99();
    row.goals.push(Goal::at_most("redeem's p99, × undisturbed", Some(slower), 3.0));
    row.notes.push(format!("swept {} per second for {} s", number(swept_per_s), number(seconds)));
    row.notes.push(format!("each as a part of its own full rate, together {}", number(shares)));
    row.notes.push(format!("redeeming in full {}", full.all()));
    let (p50, p99) = (number(half.p50()), number(half.p99()));
    row.notes.push(format!("undisturbed at half p50 {p50} ms, p99 {p99} ms"));
    Ok(row.announce())
}

/// So many coupons are redeemed at a pace.
fn paced(per_second: f64, time: Duration) -> usize {
    (per_second * time.as_secs_f64()) as usize + 1
}

/// A ledger with coupons that have ended and are not swept.
async fn world(engine: &Engine, settings: &Settings, name: &str, ended: i64) -> anyhow::Result<World> {
    let now_ms = Clock::System.now_ms();
    let day = |days: i64| Zone::default().moment(now_ms + days * DAY_MS).day;
    let past = Clock::manual(now_ms - 5 * DAY_MS);
    let members = settings.scaled(1_000_000).max(10_000);
    let mut world = World::create(engine, &settings.program, settings.folder(), name, members, past).await?;
    let ledger = world.in_process().await?;
    let validity = Validity::Fixed { start: day(-10), end: day(-2) };
    let definition = load::define(&ledger, load::offer(validity), None).await?;
    load::issue_in_process(&ledger, definition, (0..ended).map(|place| place % members + 1)).await?;
    ledger.store().close().await;
    world.set_clock(Clock::System);
    Ok(world)
}

/// Waits until the log's head is there, and fails when it stands still.
async fn wait_for(look: &Store, position: i64) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let head = head(look).await?;
        if head >= position {
            return Ok(());
        }
        if head > last {
            (last, moved) = (head, Instant::now());
        }
        ensure!(moved.elapsed() < STALLED, "the sweep stands still at {head} of {position}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Raises the flag once everything is swept: what is redeemed afterwards would be undisturbed.
async fn watch_expired(look: Store, before: i64, ended: i64, done: Arc<AtomicBool>) -> anyhow::Result<()> {
    // The sweep writes how far it has come only when it is through.
    let sql = "SELECT COUNT(*) FROM checkpoints WHERE bucket = $1 AND name = 'expiry' AND value > 0";
    loop {
        if head(&look).await? >= before + ended {
            let rows = look.query(Statement::new(sql, [BUCKET.into()])).await?;
            if rows.first().is_some_and(|row| row.int(0) > 0) {
                done.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn head(look: &Store) -> anyhow::Result<i64> {
    let rows = look
        .query(Statement::new("SELECT position FROM log_head WHERE bucket = $1", [BUCKET.into()]))
        .await?;
    Ok(rows.first().context("no head")?.int(0))
}
