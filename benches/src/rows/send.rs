//! A mass send to every member while some of them redeem: a job of the server's own, started over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::store::{BUCKET, Statement};

use crate::client::Pace;
use crate::load::PLAIN;
use crate::measure::{Cores, Goal, Round, Rounds, Row, number};
use crate::rows::Settings;
use crate::work::Redeems;
use crate::world::World;

/// Redemptions a second meanwhile.
const MEANWHILE: f64 = 500.0;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A send that takes longer is broken.
const LONGEST: Duration = Duration::from_secs(600);

/// Sends to every member, and counts that everyone got one.
pub async fn send(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    let members = world.members;
    let needed = (MEANWHILE * 120.0 * settings.scale.max(0.1)) as usize;
    world.stock_up(needed).await?;
    world.settle()?;
    world.serve(1).await?;
    let before = world.head().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let coupons = world.take(needed);
    let redeems = Redeems::new(coupons, true).until(stop.clone());
    let cpu = world.cpu_seconds(1)?;
    let begun = Instant::now();
    let sending = async {
        let server = world.servers().first().context("no server")?;
        let answer =
            server.post("/sendelecoupon/add", &world.operator(), &format!("coupon_id={PLAIN}")).await?;
        ensure!(answer.contains("{\"code\":0,"), "the send was not started: {answer}");
        let answered = begun.elapsed().as_secs_f64();
        while !is_done(world).await? {
            ensure!(begun.elapsed() < LONGEST, "the send is not done after {LONGEST:?}");
            tokio::time::sleep(LOOK).await;
        }
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok((answered, begun.elapsed().as_secs_f64()))
    };
    let redeeming = world.run(1, connections, LONGEST, Pace::PerSecond(MEANWHILE), redeems);
    let (sent, redeemed) = tokio::join!(sending, redeeming);
    let ((answered, seconds), (redeemed, _)) = (sent?, redeemed?);
    let after = world.cpu_seconds(1)?;
    let written = world.head().await? - before;
    // Each member's coupon, each redemption, and that the send began and ended.
    let expected = members + redeemed.round.done as i64 + 2;
    ensure!(written == expected, "{written} events are in the log instead of {expected}");
    world.lay_ready(redeemed.work.left());
    let mut rounds = Rounds::default();
    let cores = Cores {
        server: (after.0 - cpu.0) / seconds,
        database: (after.1 - cpu.1) / seconds,
        client: redeemed.cpu_seconds / seconds,
    };
    rounds.push(Round { done: members as u64, seconds, micros: Vec::new() }, Some(cores));
    let name =
        format!("mass send to {} members while {} redeem per second", number(members as f64), MEANWHILE);
    let mut row = Row::new(name, world.engine.name(), rounds);
    let per_million = seconds * 1_000_000.0 / members as f64;
    row.goals.push(Goal::at_most("s per 1,000,000", Some(per_million), 120.0));
    row.goals.push(Goal::at_most("MiB at its peak", Some(world.memory()?.peak_mib), 256.0));
    let mut meanwhile = Rounds::default();
    meanwhile.push(redeemed.round, None);
    row.notes.push(format!(
        "answered after {} s, done after {} s; redeemed meanwhile p50 {} ms, p99 {} ms",
        number(answered),
        number(seconds),
        number(meanwhile.p50()),
        number(meanwhile.p99())
    ));
    Ok(row.announce())
}

async fn is_done(world: &World) -> anyhow::Result<bool> {
    let sql = "SELECT state FROM jobs_v1 WHERE bucket = $1 ORDER BY job_id DESC LIMIT 1";
    let rows = world.look().query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.first().is_some_and(|row| row.int(0) == 1))
}
