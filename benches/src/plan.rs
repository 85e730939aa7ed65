//! Which rows run on which load, so that one load serves many rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use coupon_ledger::clock::Clock;

use crate::field::{Field, Of};
use crate::load::PLAIN;
use crate::measure::Row;
use crate::postgres::Postgres;
use crate::rows::{Settings, bulk, commands, export, flood, hot, reads, send, statistics, sweep};
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
    /// Mass send
    Send,
    /// The sweep
    Sweep,
    /// Members beside thousands that dribble
    Flood,
    /// The statistics beside the writer
    Statistics,
    /// Pages of two years' statistics
    Pages,
    /// Lists and the log as files
    Export,
}

impl RowName {
    /// Rows on a ledger of 1,000,000 coupons.
    const MILLION: [Self; 10] = [
        Self::Redeem,
        Self::Latency,
        Self::Processes,
        Self::Hot,
        Self::Replay,
        Self::Start,
        Self::Send,
        Self::Flood,
        Self::Statistics,
        Self::Export,
    ];

    /// Rows on a ledger of 3,000,000 coupons.
    const THREE_MILLION: [Self; 5] =
        [Self::Couponlist, Self::Couponinfo, Self::Mixed, Self::Growth, Self::Memory];
}

/// Runs the rows on each engine; what is measured is in `rows` even where the run ends early.
pub async fn run(
    settings: &Settings,
    which: Which,
    wanted: &[RowName],
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    if which != Which::Sqlite {
        let postgres = Arc::new(Postgres::start()?);
        println!("- {}, default configuration and shared_buffers=2GB, max_wal_size=8GB", postgres.version()?);
        println!("- VACUUM (ANALYZE) and CHECKPOINT after loading");
        Run::new(Engine::Postgres(postgres), settings, wanted, rows).every_row().await?;
    }
    if which != Which::Postgres {
        Run::new(Engine::Sqlite, settings, wanted, rows).every_row().await?;
    }
    Ok(())
}

/// Redeems with several builds of the program in turns, on each engine.
pub async fn compare(
    settings: &Settings,
    which: Which,
    programs: &[PathBuf],
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut engines = Vec::new();
    if which != Which::Sqlite {
        engines.push(Engine::Postgres(Arc::new(Postgres::start()?)));
    }
    if which != Which::Postgres {
        engines.push(Engine::Sqlite);
    }
    for engine in engines {
        let members = settings.scaled(1_000_000).max(10_000);
        let folder = settings.folder();
        let world = World::create(&engine, &settings.program, folder, "ledger", members, Clock::System);
        let mut world = world.await?;
        let (.., issued) = world.issue(PLAIN, 1, members).await?;
        world.add_unused(issued).await?;
        world.settle()?;
        let usual = vec![64, 256];
        for connections in settings.connections.map_or(usual, |connections| vec![connections]) {
            rows.extend(commands::compare(&mut world, settings, programs, connections).await?);
        }
        world.stop().await?;
    }
    Ok(())
}

/// The rows on one engine.
struct Run<'a> {
    engine: Engine,
    settings: &'a Settings,
    wanted: &'a [RowName],
    rows: &'a mut Vec<Row>,
    field: Field<'a>,
}

impl<'a> Run<'a> {
    fn new(engine: Engine, settings: &'a Settings, wanted: &'a [RowName], rows: &'a mut Vec<Row>) -> Self {
        let field = Field::new(engine.clone(), settings);
        Self { engine, settings, wanted, rows, field }
    }

    async fn every_row(mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        if self.wants(RowName::Issue) || self.wants_any(&RowName::MILLION) {
            self.on_a_million().await?;
        }
        if self.wants_any(&RowName::THREE_MILLION) {
            self.on_three_million().await?;
        }
        if self.wants(RowName::Sweep) {
            let rivals = self.field.rivals(Of::Sweep).await?;
            let rows = sweep::sweep(&self.engine, self.settings, self.connections(256), rivals).await?;
            self.rows.extend(rows);
        }
        if self.wants(RowName::Pages) {
            self.say("two years are lived through");
            let rows = statistics::pages(&self.engine, self.settings, self.connections(4)).await?;
            self.rows.extend(rows);
        }
        self.say(&format!("{:.0} s in all", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn ledger(&self, name: &str) -> anyhow::Result<World> {
        let settings = self.settings;
        let members = settings.scaled(1_000_000).max(10_000);
        let folder = settings.folder();
        World::create(&self.engine, &settings.program, folder, name, members, Clock::System).await
    }

    /// A ledger that begins with 1,000,000 coupons; every redeem needs one more.
    async fn on_a_million(&mut self) -> anyhow::Result<()> {
        let settings = self.settings;
        let world = &mut self.ledger("million").await?;
        self.say(&format!("issuing to {} members", world.members));
        let rivals = self.field.rivals(Of::Issue).await?;
        let issue = bulk::issue(world, settings, rivals).await?;
        self.add(RowName::Issue, issue);
        world.settle()?;
        if self.wants(RowName::Redeem) {
            let usual = vec![(64, true), (256, true), (8, true), (64, false)];
            let asked =
                settings.connections.map(|connections| vec![(connections, true), (connections, false)]);
            for (connections, keys) in asked.unwrap_or(usual) {
                let rivals = self.field.rivals(Of::Redeem { connections, keys }).await?;
                let row = commands::redeem(world, settings, connections, keys, rivals).await?;
                self.add(RowName::Redeem, row);
            }
        }
        if self.wants(RowName::Latency) {
            let rivals = self.field.rivals(Of::Redeem { connections: 1, keys: true }).await?;
            self.add(RowName::Latency, commands::redeem(world, settings, 1, true, rivals).await?);
        }
        // The embedded ledger belongs to one process.
        if self.wants(RowName::Processes) && matches!(self.engine, Engine::Postgres(_)) {
            let row = commands::processes(world, settings, self.connections(256)).await?;
            self.add(RowName::Processes, row);
        }
        if self.wants(RowName::Hot) {
            self.add(RowName::Hot, hot::claims(world, settings, self.connections(256)).await?);
        }
        if self.wants(RowName::Flood) {
            self.add(RowName::Flood, flood::flood(world, settings, self.connections(64)).await?);
        }
        if self.wants(RowName::Statistics) {
            let row = statistics::statistics(world, settings, self.connections(256)).await?;
            self.add(RowName::Statistics, row);
        }
        if self.wants(RowName::Start) {
            self.add(RowName::Start, commands::start(world, settings).await?);
        }
        if self.wants(RowName::Replay) {
            let rivals = self.field.rivals(Of::Replay(world)).await?;
            self.add(RowName::Replay, bulk::replay(world, rivals, settings).await?);
        }
        if self.wants(RowName::Export) {
            let rows = export::export(world, settings).await?;
            self.rows.extend(rows);
        }
        if self.wants(RowName::Send) {
            self.add(RowName::Send, send::send(world, settings, self.connections(64)).await?);
        }
        world.stop().await
    }

    /// A ledger that grows from 100,000 coupons to 3,000,000.
    async fn on_three_million(&mut self) -> anyhow::Result<()> {
        let settings = self.settings;
        let world = &mut self.ledger("three-million").await?;
        let few_readers = settings.scaled(1_000);
        let mut small = None;
        if self.wants(RowName::Growth) {
            self.say("loading the small ledger");
            world.add_readers(1, few_readers).await?;
            let (.., issued) = world.issue(PLAIN, 1, settings.scaled(50_000)).await?;
            world.add_unused(issued).await?;
            small = Some(reads::size(world, settings, self.connections(64)).await?);
        }
        self.say("loading the large one");
        let first = if small.is_some() { few_readers + 1 } else { 1 };
        world.add_readers(first, settings.scaled(39_000)).await?;
        // The rest are redeemed. All of it now, so that one server lives through the rows to the end, where its memory is
        // looked at.
        let rest = settings.scaled(3_000_000) - world.coupons;
        world.stock_up(usize::try_from(rest)?.max(self.needed(world))).await?;
        world.settle()?;
        for (name, page) in [(RowName::Couponlist, Page::List), (RowName::Couponinfo, Page::Info)] {
            if self.wants(name) {
                let connections = self.connections(64);
                let rivals = self.field.rivals(Of::Page { world, page, connections }).await?;
                self.add(name, reads::page(world, settings, connections, page, rivals).await?);
            }
        }
        if self.wants(RowName::Mixed) || self.wants(RowName::Memory) {
            self.add(RowName::Mixed, reads::mixed(world, settings, self.connections(256)).await?);
        }
        if let Some(small) = small {
            let large = reads::size(world, settings, self.connections(64)).await?;
            self.rows.extend(reads::growth(world, &small, large));
        }
        if self.wants(RowName::Memory) {
            self.add(RowName::Memory, commands::memory(world)?);
        }
        Ok(())
    }

    /// How many coupons the rows on the large ledger redeem.
    fn needed(&self, world: &World) -> usize {
        let settings = self.settings;
        let growth = world.enough(settings.all_rounds(), self.connections(64)) / 2;
        reads::mixed_needs(world, settings, self.connections(256)) + growth
    }

    fn wants(&self, row: RowName) -> bool {
        self.wanted.contains(&row)
    }

    fn wants_any(&self, some: &[RowName]) -> bool {
        some.iter().any(|row| self.wants(*row))
    }

    /// Rows that were run only for what others need are left out.
    fn add(&mut self, name: RowName, row: Row) {
        let wanted = self.wants(name);
        self.rows.extend(wanted.then_some(row));
    }

    fn connections(&self, usual: usize) -> usize {
        self.settings.connections.unwrap_or(usual)
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.engine.name());
    }
}
