//! Statistics: what they cost the writer, how far behind it they are, and what a page of two years takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::clock::Clock;
use coupon_ledger::store::{BUCKET, Statement, Store};

use crate::client::Pace;
use crate::load;
use crate::measure::{Goal, Rounds, Row, number};
use crate::rows::Settings;
use crate::work::{Asked, Figures, Owned};
use crate::world::{Engine, World};

const DAY_MS: i64 = 86_400_000;

/// How long the follower may take to what is there when it begins.
const CATCH_UP: Duration = Duration::from_mins(30);

/// Two years of a merchant, in events.
const EVENTS: i64 = 10_000_000;
const DAYS: i64 = 730;
const DEFINITIONS: i64 = 50;
const SHOPS: i64 = 20;

/// Coupons are used so many days after they were issued, those that are: two of three.
const USED_AFTER: [i64; 4] = [0, 2, 9, 30];

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

/// The days of a page of a month.
const MONTH: i64 = 30;

/// What is asked of a ledger of two years.
const PAGES: [(&str, Asked); 14] = [
    ("elecoupon, a month", page("/statistics/elecoupon", MONTH, "&page={page}", ("\"redemption_rate\"", 10))),
    (
        "elecoupon, two years",
        page("/statistics/elecoupon", DAYS, "&page={page}", ("\"redemption_rate\"", 10)),
    ),
    ("elecouponby shop, a month", page("/statistics/elecouponby", MONTH, "&by=shop", ("\"members\"", 10))),
    ("elecouponby shop, two years", page("/statistics/elecouponby", DAYS, "&by=shop", ("\"members\"", 10))),
    (
        "elecouponby day, thirty of them",
        page("/statistics/elecouponby", MONTH, "&by=day", ("\"members\"", 10)),
    ),
    ("elecouponby user, a month", page("/statistics/elecouponby", MONTH, "&by=user", ("\"members\"", 1))),
    ("audit, a month", page("/statistics/audit", MONTH, "", ("\"shop_name\"", 10))),
    ("audit, two years", page("/statistics/audit", DAYS, "", ("\"shop_name\"", 10))),
    (
        "audit of a definition, two years",
        page("/statistics/audit", DAYS, "&coupon_id={turn}", ("\"shop_name\"", 10)),
    ),
    (
        "audittype of a shop, two years",
        page("/statistics/audittype", DAYS, "&type=1&shop_id={turn}", ("\"coupon_title\"", 10)),
    ),
    (
        "auditcoupon, two years",
        page("/statistics/auditcoupon", DAYS, "&coupon_id={turn}", ("\"create_date\"", 10)),
    ),
    (
        "figures by shop and month, two years",
        page(
            "/v1/statistics/figures",
            DAYS,
            "&by=shop_id&grain=month&limit=1000&measures=used,used_cents,members,returning_members",
            ("\"returning_members\"", 480),
        ),
    ),
    (
        "cohorts by week, twelve of them",
        page("/v1/statistics/cohorts", 84, "&issued=week&used=week", ("\"issued\"", 12)),
    ),
    ("funnel, two years", page("/v1/statistics/funnel", DAYS, "", ("\"issued\"", 1))),
];

const fn page(path: &'static str, days: i64, form: &'static str, told: (&'static str, usize)) -> Asked {
    Asked { path, days, form, told }
}

/// Pages of statistics on a ledger of two years.
pub async fn pages(engine: &Engine, settings: &Settings, connections: usize) -> anyhow::Result<Vec<Row>> {
    let mut world = two_years(engine, settings).await?;
    let events = world.head().await?;
    world.serve(1).await?;
    let began = Instant::now();
    caught_up(&world).await?;
    let rate = events as f64 / began.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    for (name, asked) in PAGES {
        let mut rounds = Rounds::default();
        for _ in 0..settings.rounds {
            let work = Figures::new(world.operator(), asked, DAYS);
            let (outcome, cores) = world.run(1, connections, settings.duration(), Pace::Closed, work).await?;
            rounds.push(outcome.round, Some(cores));
        }
        let name = format!("{name}, {connections} connections, {} events", number(events as f64));
        let mut row = Row::new(name, world.engine.name(), rounds);
        row.goals.push(Goal::at_most("p99 ms", Some(row.product.p99()), 100.0));
        row.notes.push(format!("counted from the first event at {} events a second", number(rate)));
        rows.push(row.announce());
    }
    world.stop().await?;
    Ok(rows)
}

/// Every day coupons are issued and opened, and two of three used some days later, somewhere.
async fn two_years(engine: &Engine, settings: &Settings) -> anyhow::Result<World> {
    let first_ms = Clock::System.now_ms() - DAYS * DAY_MS;
    let clock = Clock::manual(first_ms);
    let members = settings.scaled(1_000_000).max(10_000);
    let name = "two-years";
    let world = World::create(engine, &settings.program, settings.folder(), name, members, clock.clone());
    let mut world = world.await?;
    let ledger = world.in_process().await?;
    for _ in 1..SHOPS {
        load::open_shop(&ledger).await?;
    }
    let mut definitions = Vec::new();
    for _ in 0..DEFINITIONS {
        definitions.push(load::define(&ledger, load::offer(load::validity(900)), None).await?);
    }
    // Each coupon is three events, or two.
    let a_day = settings.scaled(EVENTS) * 3 / 8 / DAYS;
    let mut waiting: Vec<Vec<Owned>> = vec![Vec::new(); (DAYS + 31) as usize];
    let mut member = 0;
    for day in 0..DAYS {
        clock.set(first_ms + day * DAY_MS);
        for (turn, definition) in definitions.iter().enumerate() {
            let count = a_day / DEFINITIONS;
            let whom = (member..member + count).map(|place| place % members + 1);
            member += count;
            let issued = load::issue_in_process(&ledger, *definition, whom).await?;
            load::view(&ledger, &issued).await?;
            for (place, coupon) in issued.into_iter().enumerate().filter(|(place, _)| place % 3 != 0) {
                let after = USED_AFTER.get((place + turn) % USED_AFTER.len()).copied().unwrap_or_default();
                if let Some(then) = waiting.get_mut((day + after) as usize) {
                    then.push(coupon);
                }
            }
        }
        let due = waiting.get_mut(day as usize).map(std::mem::take).unwrap_or_default();
        load::redeem(&ledger, &due, SHOPS).await?;
    }
    ledger.store().close().await;
    world.set_clock(Clock::System);
    world.settle()?;
    Ok(world)
}

async fn tell(world: &World, order: &str) -> anyhow::Result<()> {
    let server = world.servers().first().context("no server")?;
    let answer = server.post(&format!("/v1/followers/statistics/{order}"), &world.operator(), "").await?;
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

/// Waits until the statistics have counted what is there: what is measured then is not beside that.
pub async fn caught_up(world: &World) -> anyhow::Result<()> {
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
