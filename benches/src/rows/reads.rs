//! Reading: lists, details, reads mixed with commands, and what growth does to them.

use std::time::Duration;

use anyhow::ensure;

use crate::client::Pace;
use crate::measure::{Cores, Goal, Round, Rounds, Row};
use crate::rivals::Rivals;
use crate::rows::Settings;
use crate::work::{Mixed, Page, Reads, Redeems};
use crate::world::World;

async fn read(
    world: &World,
    duration: Duration,
    connections: usize,
    page: Page,
) -> anyhow::Result<(Round, Cores)> {
    let before = world.head().await?;
    let work = Reads::new(world.readers.clone(), page);
    let (outcome, cores) = world.run(1, connections, duration, Pace::Closed, work).await?;
    // Every coupon was opened when it was loaded: no page writes anything.
    ensure!(world.head().await? == before, "reading wrote to the log");
    Ok((outcome.round, cores))
}

/// One kind of page, in turns with the bare handler.
pub async fn page(
    world: &mut World,
    settings: &Settings,
    connections: usize,
    page: Page,
    mut rivals: Rivals,
) -> anyhow::Result<Row> {
    world.serve(1).await?;
    let mut rounds = Rounds::default();
    for _ in 0..settings.rounds {
        let (round, cores) = read(world, settings.duration(), connections, page).await?;
        rounds.push(round, Some(cores));
        rivals.take_turns(settings.duration()).await?;
    }
    let name = match page {
        Page::List => "couponlist, 10 of 50 rows",
        Page::Info => "couponinfo",
        Page::Both => "couponlist and couponinfo in turn",
    };
    let mut row = Row::new(format!("{name}, {connections} connections"), world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("× the bare handler", row.to_peer(), 1.5));
    Ok(row.announce())
}

/// Nine reads and a command, held against what each alone makes possible.
pub async fn mixed(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    world.stock_up(mixed_needs(world, settings, connections)).await?;
    world.serve(1).await?;
    let (mut reads, mut redeems, mut both) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..settings.rounds {
        let (round, _) = read(world, settings.duration(), connections, Page::Both).await?;
        reads.push(round, None);
        let (round, ..) = world.redeem(1, connections, settings.duration(), true).await?;
        redeems.push(round, None);
        let coupons = world.take(world.enough(settings.duration() / 2, connections));
        let work = Mixed {
            reads: Reads::new(world.readers.clone(), Page::Both),
            redeems: Redeems::new(coupons, true),
            asked: 0,
        };
        let before = world.head().await?;
        let (outcome, cores) = world.run(1, connections, settings.duration(), Pace::Closed, work).await?;
        let (written, commands) = (world.head().await? - before, outcome.work.redeems.asked());
        ensure!(
            written as u64 == commands,
            "{commands} redemptions were answered, {written} events are in the log"
        );
        both.push(outcome.round, Some(cores));
        world.lay_ready(outcome.work.redeems.left());
    }
    let possible = 1.0 / (0.9 / reads.rate() + 0.1 / redeems.rate());
    let part = both.rate() / possible;
    let name = format!("90 % reads, 10 % redeems, {connections} connections");
    let mut row = Row::new(name, world.engine.name(), both);
    row.goals.push(Goal::at_least("of 1/(0.9/R + 0.1/W)", Some(part), 0.85));
    row.goals.push(Goal::at_most("p99 ms", Some(row.product.p99()), 50.0));
    row.notes.push(format!("R: reads alone {}", reads.all()));
    row.notes.push(format!("W: redeems alone {}", redeems.all()));
    Ok(row.announce())
}

/// So many coupons last through the row: of the mixed requests only every tenth is a command.
pub fn mixed_needs(world: &World, settings: &Settings, connections: usize) -> usize {
    world.enough(settings.all_rounds() * 3 / 2, connections)
}

/// The rates on a ledger of one size.
pub struct Size {
    coupons: i64,
    redeem: Rounds,
    list: Rounds,
}

/// Measures both rates on the ledger as it is. Rounds are short, so that the small ledger stays small.
pub async fn size(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Size> {
    let short = settings.duration() / 4;
    let coupons = world.coupons;
    let (mut redeem, mut list) = (Rounds::default(), Rounds::default());
    for _ in 0..settings.rounds {
        world.stock_up(world.enough(short, connections)).await?;
        world.serve(1).await?;
        let (round, cores) = read(world, short, connections, Page::List).await?;
        list.push(round, Some(cores));
        let (round, cores, _) = world.redeem(1, connections, short, true).await?;
        redeem.push(round, Some(cores));
    }
    Ok(Size { coupons, redeem, list })
}

/// What growth from one size to the other does.
pub fn growth(world: &World, small: &Size, large: Size) -> Vec<Row> {
    let number = |value: i64| crate::measure::number(value as f64);
    let (from, to) = (number(small.coupons), number(large.coupons));
    let line = |what: &str, before: &Rounds, after: Rounds| {
        let part = after.rate() / before.rate();
        let mut row = Row::new(format!("growth from {from} to {to}: {what}"), world.engine.name(), after);
        row.goals.push(Goal::at_least("of the rate on the small ledger", Some(part), 0.85));
        row.notes.push(format!("on {from}: {}", before.all()));
        row.announce()
    };
    vec![line("redeem", &small.redeem, large.redeem), line("couponlist", &small.list, large.list)]
}
