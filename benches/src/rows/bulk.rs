//! What goes through many coupons at once: bulk issue, and replay.

use std::time::Instant;

use anyhow::ensure;
use coupon_ledger::coupon::Coupon;
use coupon_ledger::replay::{self, Replayed};

use crate::load::PLAIN;
use crate::measure::{Goal, Round, Rounds, Row, median, number};
use crate::rivals::Rivals;
use crate::rows::Settings;
use crate::server;
use crate::world::World;

/// Parts of the bulk issue, so that the raw limit can take turns with it.
const PARTS: i64 = 4;

/// Issues a coupon to every member, in turns with the raw limit, and lays them ready with a history.
pub async fn issue(world: &mut World, settings: &Settings, mut rivals: Rivals) -> anyhow::Result<Row> {
    let members = world.members;
    let mut rounds = Rounds::default();
    let (mut issued, mut peak) = (Vec::new(), 0.0_f64);
    for part in 0..PARTS {
        let (first, last) = (members * part / PARTS + 1, members * (part + 1) / PARTS);
        let (ran, used, coupons) = world.issue(PLAIN, first, last).await?;
        let done = (last - first + 1) as u64;
        rounds.push(Round { done, seconds: ran.seconds, micros: Vec::new() }, Some(used));
        peak = peak.max(ran.memory.peak_mib);
        issued.extend(coupons);
        rivals.take_turns(settings.duration()).await?;
    }
    let name = format!("bulk issue to {} members", number(members as f64));
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("of the raw limit", row.to_raw(), 0.7));
    row.goals.push(Goal::at_most("MiB at its peak", Some(peak), 256.0));
    world.add_unused(issued).await?;
    Ok(row.announce())
}

/// Folds every coupon of the log, in turns with reading the raw rows; then writes the live tables anew.
pub async fn replay(world: &mut World, mut rivals: Rivals, settings: &Settings) -> anyhow::Result<Row> {
    world.stop().await?;
    let (mut rounds, mut seconds, mut rebuilds) = (Rounds::default(), Vec::new(), Vec::new());
    let mut read = Replayed::default();
    for _ in 0..settings.rounds {
        let begun = Instant::now();
        read = replay::replay::<Coupon, _>(world.look(), || {
            |id: i64, state: Coupon| {
                std::hint::black_box((id, state));
            }
        })
        .await?;
        let took = begun.elapsed().as_secs_f64();
        seconds.push(took);
        rounds.push_rate(read.events as f64 / took);
        rivals.take_turns(settings.duration()).await?;
        rebuilds.push(server::run(&world.place, &["rebuild", "all", "--drop-old"]).await?);
    }
    ensure!(read.streams >= world.coupons as u64, "{} streams of {} coupons", read.streams, world.coupons);
    let (events, coupons) = (number(read.events as f64), number(read.streams as f64));
    let name = format!("replay: read and fold {events} events of {coupons} coupons");
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("of reading the raw rows", row.to_raw(), 0.6));
    let rebuild = median(&rebuilds.iter().map(|ran| ran.seconds).collect::<Vec<_>>());
    let times = rebuild / median(&seconds);
    row.goals.push(Goal::at_most("rebuild of every live table, × replay", Some(times), 2.0));
    let peak = rebuilds.iter().map(|ran| ran.memory.peak_mib).fold(0.0, f64::max);
    row.notes.push(format!(
        "replay {} s, rebuild {} s and {} MiB at its peak",
        number(median(&seconds)),
        number(rebuild),
        number(peak)
    ));
    Ok(row.announce())
}
