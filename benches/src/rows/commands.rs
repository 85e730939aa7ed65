//! Redeeming: at many connections and at one, with keys and without, by one server and by two.

use std::path::PathBuf;

use crate::measure::{Goal, Rounds, Row};
use crate::rivals::Rivals;
use crate::rows::Settings;
use crate::world::{Engine, World};

/// What a redeem row must reach.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goals {
    /// As a multiple of the best peer's rate.
    pub peer: Option<f64>,
    /// As a part of the best peer's p99.
    pub peer_p99: Option<f64>,
    /// As a part of the raw limit.
    pub raw: Option<f64>,
    /// In milliseconds.
    pub p99_ms: Option<f64>,
    /// As a multiple of the raw limit's p50.
    pub raw_p50: Option<f64>,
}

/// What the issue asks of redeeming at so many connections.
pub fn goals(engine: &Engine, connections: usize, keys: bool) -> Goals {
    let none = Goals::default();
    match (engine, connections) {
        (_, 1) => Goals { raw_p50: Some(1.5), ..none },
        (Engine::Postgres(_), 64) if keys => Goals { peer: Some(6.0), peer_p99: Some(0.5), ..none },
        (Engine::Postgres(_), 256) if keys => {
            Goals { peer: Some(9.0), raw: Some(0.7), p99_ms: Some(80.0), ..none }
        }
        (Engine::Sqlite, 64) if keys => {
            Goals { peer: Some(10.0), raw: Some(0.7), p99_ms: Some(60.0), ..none }
        }
        _ => none,
    }
}

/// Members redeem over so many connections, each his own coupon, in turns with the rivals.
pub async fn redeem(
    world: &mut World,
    settings: &Settings,
    connections: usize,
    keys: bool,
    mut rivals: Rivals,
) -> anyhow::Result<Row> {
    let goals = goals(&world.engine, connections, keys);
    world.stock_up(world.enough(settings.all_rounds(), connections)).await?;
    world.serve(1).await?;
    let mut rounds = Rounds::default();
    for _ in 0..settings.rounds {
        let (round, cores, _) = world.redeem(1, connections, settings.duration(), keys).await?;
        rounds.push(round, Some(cores));
        rivals.take_turns(settings.duration()).await?;
    }
    let name = match (connections, keys) {
        (1, _) => "redeem, 1 connection (latency)".to_owned(),
        (many, true) => format!("redeem, {many} connections"),
        (many, false) => format!("redeem, {many} connections, no keys"),
    };
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    if let Some(bound) = goals.peer {
        row.goals.push(Goal::at_least("× peer", row.to_peer(), bound));
    }
    if let Some(bound) = goals.peer_p99 {
        let part = row.best_peer().map(|(_, peer)| row.product.p99() / peer.p99());
        row.goals.push(Goal::at_most("p99 as a part of the peer's", part, bound));
    }
    if let Some(bound) = goals.raw {
        row.goals.push(Goal::at_least("of the raw limit", row.to_raw(), bound));
    }
    if let Some(bound) = goals.p99_ms {
        row.goals.push(Goal::at_most("p99 ms", Some(row.product.p99()), bound));
    }
    if let Some(bound) = goals.raw_p50 {
        let times = row.raw.first().map(|(_, raw)| row.product.p50() / raw.p50());
        row.goals.push(Goal::at_most("p50 × the bare transaction's", times, bound));
    }
    Ok(row.announce())
}

/// Two servers on one database against one of them, and what each got to do.
pub async fn processes(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    world.stock_up(world.enough(settings.all_rounds() * 2, connections)).await?;
    world.serve(2).await?;
    let (mut one, mut two) = (Rounds::default(), Rounds::default());
    let mut shares = [0, 0];
    for _ in 0..settings.rounds {
        let (round, ..) = world.redeem(1, connections, settings.duration(), true).await?;
        one.push(round, None);
        let (round, cores, done) = world.redeem(2, connections, settings.duration(), true).await?;
        two.push(round, Some(cores));
        shares.iter_mut().zip(done).for_each(|(share, done)| *share += done);
    }
    world.serve(1).await?;
    let smaller = shares[0].min(shares[1]) as f64 / (shares[0] + shares[1]) as f64;
    let to_one = two.rate() / one.rate();
    let mut row =
        Row::new(format!("redeem, 2 processes, {connections} connections"), world.engine.name(), two);
    row.goals.push(Goal::at_least("× one process", Some(to_one), 0.9));
    // Connections are dealt out evenly, so half is a fair share.
    row.goals.push(Goal::at_least("share of the slower process", Some(smaller), 0.3));
    row.notes.push(format!("one process {}", one.all()));
    row.notes.push("every answer is an event in the log, none lost, none doubled".to_owned());
    Ok(row.announce())
}

/// Builds of the program in turns on one ledger: what each makes of redeeming.
pub async fn compare(
    world: &mut World,
    settings: &Settings,
    programs: &[PathBuf],
    connections: usize,
) -> anyhow::Result<Vec<Row>> {
    let needed = world.enough(settings.all_rounds() * programs.len() as u32, connections);
    world.stock_up(needed).await?;
    let mut rounds = vec![Rounds::default(); programs.len()];
    for _ in 0..settings.rounds {
        for (program, rounds) in programs.iter().zip(&mut rounds) {
            world.stop().await?;
            world.place.program.clone_from(program);
            world.serve(1).await?;
            let (round, cores, _) = world.redeem(1, connections, settings.duration(), true).await?;
            rounds.push(round, Some(cores));
        }
    }
    let first = rounds.first().map_or(0.0, Rounds::rate);
    let rows = programs.iter().zip(rounds).map(|(program, rounds)| {
        let name = format!("redeem, {connections} connections, {}", program.display());
        let note = format!("× the first program: {:.3}", rounds.rate() / first);
        let mut row = Row::new(name, world.engine.name(), rounds);
        row.notes.push(note);
        row.announce()
    });
    Ok(rows.collect())
}

/// From exec to ready, on the ledger as it is.
pub async fn start(world: &mut World, settings: &Settings) -> anyhow::Result<Row> {
    let mut rounds = Rounds::default();
    let mut micros = Vec::new();
    for _ in 0..settings.rounds.max(5) {
        world.stop().await?;
        world.serve(1).await?;
        micros.extend(world.servers().iter().map(|server| server.ready_after.as_micros() as u32));
    }
    rounds.push_times(micros);
    let coupons = crate::measure::number(world.coupons as f64);
    let mut row = Row::new(format!("start on {coupons} coupons"), world.engine.name(), rounds);
    row.goals.push(Goal::at_most("ms until ready", Some(row.product.p50()), 300.0));
    Ok(row.announce())
}

/// What the servers hold, after all that went before.
pub fn memory(world: &World) -> anyhow::Result<Row> {
    let now = world.memory()?;
    let mut row = Row::new("memory after the run", world.engine.name(), Rounds::default());
    row.goals.push(Goal::at_most("MiB resident", Some(now.resident_mib), 300.0));
    let number = crate::measure::number;
    row.notes.push(format!("the most that any server of this run held: {} MiB", number(now.peak_mib)));
    Ok(row.announce())
}
