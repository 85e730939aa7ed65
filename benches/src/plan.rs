//! Which rows run on which load, so that one load serves many rows.

use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use coupon_ledger::clock::Clock;

use crate::load::PLAIN;
use crate::measure::Row;
use crate::postgres::Postgres;
use crate::rows::{Settings, bulk, commands, hot, nobody, reads, sweep};
use crate::work::Page;
use crate::world::{Engine, World};

/// The engines of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// A PostgreSQL of the run's own
    Postgres,
    /// SQLite in a folder of the run's own
    Sqlite,
    /// The one after the other
    Both,
}

/// A row of the table, or several that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowName {
    /// Redeem at 64, 256 and 8 connections, and without keys
    Redeem,
    /// Redeem at one connection
    Latency,
    /// Two server processes
    Processes,
    /// Bulk issue
    Issue,
    /// Claims on one definition
    Hot,
    /// A member's list
    Couponlist,
    /// One coupon
    Couponinfo,
    /// Reads and redeems
    Mixed,
    /// Read and fold the log
    Replay,
    /// A small ledger against a large one
    Growth,
    /// What the server holds
    Memory,
    /// From exec to ready
    Start,
    /// The sweep
    Sweep,
}

impl RowName {
    /// Rows on a ledger of 1,000,000 coupons.
    const MILLION: [Self; 6] =
        [Self::Redeem, Self::Latency, Self::Processes, Self::Hot, Self::Replay, Self::Start];

    /// Rows on a ledger of 3,000,000 coupons.
    const THREE_MILLION: [Self; 5] =
        [Self::Couponlist, Self::Couponinfo, Self::Mixed, Self::Growth, Self::Memory];
}

/// Runs the rows on each engine.
pub async fn run(settings: &Settings, which: Which, wanted: &[RowName]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if which != Which::Sqlite {
        let postgres = Arc::new(Postgres::start()?);
        println!("- {}, default configuration and shared_buffers=2GB, max_wal_size=8GB", postgres.version()?);
        rows.extend(on(&Engine::Postgres(postgres), settings, wanted).await?);
    }
    if which != Which::Postgres {
        rows.extend(on(&Engine::Sqlite, settings, wanted).await?);
    }
    Ok(rows)
}

async fn on(engine: &Engine, settings: &Settings, wanted: &[RowName]) -> anyhow::Result<Vec<Row>> {
    let begun = Instant::now();
    let mut rows = Vec::new();
    let wants = |row: RowName| wanted.contains(&row);
    let wants_any = |some: &[RowName]| some.iter().any(|row| wants(*row));
    if wants(RowName::Issue) || wants_any(&RowName::MILLION) || wants_any(&RowName::THREE_MILLION) {
        rows.extend(on_one_ledger(engine, settings, &wants, &wants_any).await?);
    }
    if wants(RowName::Sweep) {
        let connections = settings.connections.unwrap_or(256);
        rows.extend(sweep::sweep(engine, settings, connections, nobody(engine)).await?);
    }
    eprintln!("{}: {:.0} s in all", engine.name(), begun.elapsed().as_secs_f64());
    Ok(rows)
}

/// The ledger grows from 100,000 coupons to 1,000,000 and to 3,000,000; each row runs at its size.
async fn on_one_ledger(
    engine: &Engine,
    settings: &Settings,
    wants: &impl Fn(RowName) -> bool,
    wants_any: &impl Fn(&[RowName]) -> bool,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let at = |usual: usize| settings.connections.unwrap_or(usual);
    let members = settings.scaled(1_000_000).max(10_000);
    let (few_readers, readers) = (settings.scaled(1_000), settings.scaled(39_000));
    let world = World::create(engine, &settings.program, settings.folder(), "ledger", members, Clock::System);
    let mut world = world.await?;

    let mut small = None;
    if wants(RowName::Growth) {
        eprintln!("{}: loading the small ledger", engine.name());
        world.add_readers(1, few_readers).await?;
        let (.., issued) = world.issue(PLAIN, 1, settings.scaled(50_000)).await?;
        world.add_unused(issued).await?;
        small = Some(reads::size(&mut world, settings, at(64)).await?);
    }

    eprintln!("{}: issuing to {members} members", engine.name());
    let issue = bulk::issue(&mut world, settings, nobody(engine)).await?;
    if wants(RowName::Issue) {
        rows.push(issue);
    }
    world.settle()?;
    if wants(RowName::Redeem) {
        let usual = [(64, true), (256, true), (8, true), (64, false)];
        let asked = settings.connections.map(|connections| vec![(connections, true), (connections, false)]);
        for (connections, keys) in asked.unwrap_or(usual.to_vec()) {
            rows.push(commands::redeem(&mut world, settings, connections, keys, nobody(engine)).await?);
        }
    }
    if wants(RowName::Latency) {
        rows.push(commands::redeem(&mut world, settings, 1, true, nobody(engine)).await?);
    }
    // The embedded ledger belongs to one process.
    if wants(RowName::Processes) && matches!(engine, Engine::Postgres(_)) {
        rows.push(commands::processes(&mut world, settings, at(256)).await?);
    }
    if wants(RowName::Hot) {
        rows.push(hot::claims(&mut world, settings, at(256)).await?);
    }
    if wants(RowName::Start) {
        rows.push(commands::start(&mut world, settings).await?);
    }
    if wants(RowName::Replay) {
        rows.push(bulk::replay(&mut world, settings, nobody(engine)).await?);
    }

    if wants_any(&RowName::THREE_MILLION) {
        eprintln!("{}: loading the members who read", engine.name());
        let first = if small.is_some() { few_readers + 1 } else { 1 };
        world.add_readers(first, readers).await?;
        // All of it now, so that one server lives through the rows to the end, where its memory is looked at.
        let commands = wants(RowName::Mixed) || wants(RowName::Memory) || wants(RowName::Growth);
        if commands {
            let growth = world.enough(settings.all_rounds(), at(64)) / 2;
            world.stock_up(reads::mixed_needs(&world, settings, at(256)) + growth).await?;
        }
        world.settle()?;
        for (name, page) in [(RowName::Couponlist, Page::List), (RowName::Couponinfo, Page::Info)] {
            if wants(name) {
                rows.push(reads::page(&mut world, settings, at(64), page, nobody(engine)).await?);
            }
        }
        if wants(RowName::Mixed) || wants(RowName::Memory) {
            let mixed = reads::mixed(&mut world, settings, at(256)).await?;
            rows.extend(wants(RowName::Mixed).then_some(mixed));
        }
        if let Some(small) = small {
            let large = reads::size(&mut world, settings, at(64)).await?;
            rows.extend(reads::growth(&world, &small, large));
        }
        if wants(RowName::Memory) {
            rows.push(commands::memory(&world)?);
        }
    }
    world.stop().await?;
    Ok(rows)
}
